// The page without it is complete. It opens the lock that a link leads to, shows what is pointed at, and zooms into flame graphs.
(() => {
  "use strict";
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.matches("details")) target.open = true;
  };
  addEventListener("hashchange", reveal);
  document.addEventListener("click", (event) => {
    // The same link again changes no hash.
    if (event.target.closest?.('a[href^="#"]')) setTimeout(reveal);
  });
  reveal();

  // The browser's own tips are slow and would come on top of ours.
  const tip = document.getElementById("tip");
  for (const title of document.querySelectorAll("figure svg title")) {
    title.parentElement.dataset.tip = title.textContent;
    title.remove();
  }
  document.addEventListener("pointermove", (event) => {
    const found = event.target.closest?.("[data-tip]");
    tip.hidden = !found;
    if (!found) return;
    tip.textContent = found.dataset.tip;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 18;
    const fits = below + tip.offsetHeight < innerHeight;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${fits ? below : event.clientY - tip.offsetHeight - 12}px`;
  });

  for (const figure of document.querySelectorAll("figure.flame")) {
    const svg = figure.querySelector("svg.frames");
    const reset = figure.querySelector(".unzoom");
    const all = Number(svg.getAttribute("total_samples"));
    const letters = svg.width.baseVal.value / 7.4;
    const frames = [...svg.querySelectorAll("g")].map((g) => {
      const rect = g.querySelector("rect");
      return {
        g, rect,
        text: g.querySelector("text"),
        from: Number(rect.getAttribute("fg:x")),
        size: Number(rect.getAttribute("fg:w")),
        name: g.dataset.tip.replace(/ \([^()]* ns, [^()]*\)$/, ""),
      };
    });
    const show = (from, size) => {
      for (const f of frames) {
        const left = Math.max(f.from, from);
        const width = Math.min(f.from + f.size, from + size) - left;
        f.g.style.display = width > 0 ? "" : "none";
        if (width <= 0) continue;
        const x = 100 * (left - from) / size;
        f.rect.setAttribute("x", `${x}%`);
        f.rect.setAttribute("width", `${100 * width / size}%`);
        // What reaches beyond the picture.
        f.g.style.opacity = width < f.size ? 0.55 : "";
        f.text.setAttribute("x", `${x + 0.25}%`);
        const fit = Math.floor(letters * width / size);
        f.text.textContent = fit < 3 ? "" : f.name.length < fit ? f.name : `${f.name.slice(0, fit - 2)}..`;
      }
      reset.hidden = size === all;
    };
    for (const f of frames) f.g.addEventListener("click", () => show(f.from, f.size));
    reset.addEventListener("click", () => show(0, all));
    show(0, all);
  }
})();

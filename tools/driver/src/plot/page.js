// The page without it is complete: figures in the colours that driver chose, a legend, the
// table. It lets the reader choose the locks in colour, points lines out, and sorts.
(() => {
  "use strict";
  const LOOKS = Number(document.body.dataset.looks);
  const $$ = (selector) => [...document.querySelectorAll(selector)];
  const style = document.getElementById("looks");
  const hot = document.head.appendChild(document.createElement("style"));
  const buttons = $$("button.lock");
  const tip = document.getElementById("tip");
  // Lock to look.
  const looks = new Map();
  for (const button of buttons) {
    if (button.dataset.look !== undefined) looks.set(button.dataset.lock, Number(button.dataset.look));
  }
  const first = new Map(looks);
  let restHidden = false;

  const rule = (lock, look) =>
    `.L${lock}{--c:var(--p${look});--m:url(#m${look});--w:2;--b:${looks.size > 4 ? 0.05 : 0.13}}\n`;

  const lockOf = (element) => {
    const match = /(?:^| )L(\d+)/.exec(element.getAttribute("class") || "");
    return match && match[1];
  };

  function apply() {
    let css = "";
    for (const [lock, look] of looks) css += rule(lock, look);
    if (restHidden) {
      for (const { dataset: { lock } } of buttons) {
        if (!looks.has(lock)) css += `main svg .L${lock},tr.R${lock}{display:none}\n`;
      }
    }
    style.textContent = css;
    for (const button of buttons) button.setAttribute("aria-pressed", looks.has(button.dataset.lock));
    // What is in colour lies above the rest, and what can be pointed at above everything.
    for (const svg of $$("figure svg")) {
      const parts = [...svg.children].filter(lockOf);
      const depth = (e) => (looks.has(lockOf(e)) ? 1 : 0) + (e.matches(".h") ? 2 : 0);
      parts.sort((a, b) => depth(a) - depth(b));
      svg.append(...parts);
    }
  }

  function free() {
    const used = [...looks.values()];
    let best = 0;
    let least = Infinity;
    for (let look = 0; look < LOOKS; look++) {
      const count = used.filter((l) => l === look).length;
      if (count < least) [best, least] = [look, count];
    }
    return best;
  }

  function choose(locks, on) {
    for (const lock of locks) {
      if (!on) looks.delete(lock);
      else if (!looks.has(lock)) looks.set(lock, first.has(lock) && ![...looks.values()].includes(first.get(lock)) ? first.get(lock) : free());
    }
    apply();
  }

  for (const button of buttons) {
    button.addEventListener("click", () => choose([button.dataset.lock], !looks.has(button.dataset.lock)));
    button.addEventListener("pointerenter", () => point(button.dataset.lock));
    button.addEventListener("pointerleave", () => point(null));
    button.addEventListener("focus", () => point(button.dataset.lock));
    button.addEventListener("blur", () => point(null));
  }
  for (const family of $$("button.family")) {
    const members = [...family.parentElement.querySelectorAll(".lock")].map((b) => b.dataset.lock);
    family.addEventListener("click", () => choose(members, !members.every((l) => looks.has(l))));
  }
  const tools = {
    all: () => choose(buttons.map((b) => b.dataset.lock), true),
    none: () => choose(buttons.map((b) => b.dataset.lock), false),
    first: () => {
      looks.clear();
      for (const [lock, look] of first) looks.set(lock, look);
      apply();
    },
    rest: (button) => {
      restHidden = !restHidden;
      button.setAttribute("aria-pressed", restHidden);
      apply();
    },
    open: () => {
      const groups = $$("details.group");
      const open = groups.some((d) => !d.open);
      for (const group of groups) group.open = open;
    },
  };
  for (const button of $$(".tools button")) {
    button.addEventListener("click", () => tools[button.dataset.tool](button));
  }

  let pointed = null;
  function point(lock) {
    if (lock === pointed) return;
    pointed = lock;
    hot.textContent = lock === null ? "" :
      `main svg .s:not(.L${lock}),main svg .w:not(.L${lock}){opacity:.22}` +
      `main svg .b{opacity:0}main svg .L${lock}{--w:3;--b:.2}` +
      (looks.has(lock) ? "" : `.L${lock}{--c:var(--fg)}`);
    for (const row of $$("tr.hot")) row.classList.remove("hot");
    if (lock !== null) for (const row of $$(`tr.R${lock}`)) row.classList.add("hot");
  }

  // The browser's own tips are slow and would come on top of ours.
  for (const title of $$("figure svg title")) {
    title.parentElement.dataset.tip = title.textContent;
    title.remove();
  }
  const around = [[0, 0], [0, 3], [0, -3], [3, 0], [-3, 0], [0, 6], [0, -6]];
  document.addEventListener("pointermove", (event) => {
    if (!(event.target instanceof Element)) return;
    const figure = event.target.closest("figure");
    if (!figure) {
      tip.hidden = true;
      const row = event.target.closest("tr[data-lock]");
      if (row) point(row.dataset.lock);
      else if (!event.target.closest("button.lock")) point(null);
      return;
    }
    let found = null;
    for (const [dx, dy] of around) {
      const element = document.elementFromPoint(event.clientX + dx, event.clientY + dy);
      if (element && element.dataset && element.dataset.tip && !element.matches(".b")) {
        found = element;
        break;
      }
    }
    point(found && lockOf(found));
    tip.hidden = !found;
    if (!found) return;
    tip.textContent = found.dataset.tip;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    const below = event.clientY + 18;
    const fits = below + tip.offsetHeight < innerHeight;
    tip.style.left = `${Math.max(4, left)}px`;
    tip.style.top = `${fits ? below : event.clientY - tip.offsetHeight - 12}px`;
  });

  apply();
})();

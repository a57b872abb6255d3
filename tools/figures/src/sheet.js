// The page without it is complete: tables in the order that the tool chose.
(() => {
  "use strict";
  for (const table of document.querySelectorAll("table.sheet")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const number = body.rows[0]?.cells[column].classList.contains("number");
        const down = head.getAttribute("aria-sort") === "descending" || !number && head.getAttribute("aria-sort") === "none";
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "ascending" : "descending");
        const sign = down ? 1 : -1;
        const key = (row) => {
          const cell = row.cells[column];
          if (!cell.classList.contains("number")) return cell.textContent;
          return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
        };
        const compare = (a, b) => {
          const [x, y] = [key(a), key(b)];
          if (x === null || y === null) return (x === null) - (y === null);
          const order = typeof x === "string" ? x.localeCompare(y) : x - y;
          return order * sign || a.dataset.row - b.dataset.row;
        };
        body.append(...[...body.rows].sort(compare));
      });
    });
  }
  const search = document.getElementById("search");
  search?.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of document.querySelectorAll("table.sheet tbody tr")) {
      const text = [...row.cells].slice(0, 3).map((c) => c.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
})();

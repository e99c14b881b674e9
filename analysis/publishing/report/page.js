"use strict";

// A line that says nothing of a filter's subject stays: what is filtered by head keeps the claims, which have no head.
const filters = [...document.querySelectorAll("#filters select")];
const lines = [...document.querySelectorAll("[data-model], [data-norm]")];
const counted = lines.filter((line) => !line.closest("table.matrix"));
const state = document.querySelector("#shown");

function filter() {
  const wanted = filters.filter((select) => select.value).map((select) => [select.name, select.value]);
  for (const line of lines)
    line.hidden = wanted.some(([name, value]) => name in line.dataset && line.dataset[name] !== value);
  for (const group of document.querySelectorAll("tbody.group"))
    group.hidden = !group.querySelector("tr[data-model]:not([hidden])");
  const shown = counted.filter((line) => !line.hidden).length;
  state.textContent = wanted.length ? `${shown} of ${counted.length} lines match.` : `${counted.length} lines.`;
}

for (const select of filters) select.addEventListener("change", filter);
// A form is emptied only after its reset event, so the lines would follow a moment late.
document.querySelector("#filters").addEventListener("reset", () => {
  for (const select of filters) select.value = "";
  filter();
});
filter();

// Numbers sort as numbers, wherever in the cell they begin; what has none comes last.
function value(row, column) {
  const text = row.cells[column].textContent.trim().replaceAll(",", "");
  const number = parseFloat(text.replace(/^[^\d.+-]+(?=[\d.+-])/, ""));
  return [Number.isNaN(number) ? Infinity : number, text];
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = table.tBodies[0];
      const numeric = [...body.rows].some((row) => /^[\d.,+-]+(\s|$)/.test(row.cells[column].textContent.trim()));
      const keyed = [...body.rows].map((row) => [value(row, column), row]);
      keyed.sort(([[a, s]], [[b, t]]) => (numeric && a !== b ? a - b : s.localeCompare(t)) * (up ? 1 : -1));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

const dialog = document.querySelector("dialog");
const large = dialog.querySelector("img");
for (const button of document.querySelectorAll("button.enlarge")) {
  button.hidden = false;
  const image = button.closest("figure").querySelector("img");
  const open = () => {
    large.src = image.src;
    large.alt = image.alt;
    dialog.showModal();
  };
  button.addEventListener("click", open);
  image.addEventListener("click", open);
}
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

"use strict";

// A line that says nothing of a filter's subject stays: what is filtered by head keeps the claims, which have no head.
const filters = [...document.querySelectorAll("#filters select")];
const lines = [...document.querySelectorAll("[data-model], [data-norm]")];
const counted = lines.filter((line) => !line.closest("table.matrix"));
const state = document.querySelector("#shown");

// Panels and curves of a figure are groups of its SVG; an id names the sources that one shows: source:LABEL|LABEL:NUMBER.
const figures = [...document.querySelectorAll("figure[data-sources]")].map((figure) => {
  const image = figure.querySelector("img");
  const sources = Object.entries(JSON.parse(figure.dataset.sources));
  return { plate: figure.querySelector(".plate"), note: figure.querySelector(".filtered"), image, sources, whole: image.src };
});

// Draws a figure with the panels and curves of other sources pale; a figure of other sources alone is hidden.
async function draw(figure, { kind, model }) {
  const kept = figure.sources.filter(([label, own]) => (!kind || kind === own) && (!model || model === label));
  const labels = new Set(kept.map(([label]) => label));
  const some = kept.length > 0 && kept.length < figure.sources.length;
  const asked = JSON.stringify([...labels]);
  figure.asked = asked;
  let source = figure.whole;
  if (some) {
    const svg = await unpacked(figure.image.dataset.svg);
    if (figure.asked !== asked) return; // another choice was made meanwhile
    const styled = svg.replace(/<\/svg>\s*$/, (end) => `<style>${pale(svg, labels)}</style>${end}`);
    source = `data:image/svg+xml,${encodeURIComponent(styled)}`;
  }
  if (figure.image.src !== source) figure.image.src = source;
  figure.plate.hidden = kept.length === 0 && figure.sources.length > 0;
  figure.note.hidden = !some && !figure.plate.hidden;
  figure.note.textContent = some ? "Pale: other sources than those chosen." : "This figure shows none of the chosen sources.";
}

// Axes stay, for panels side by side share their ticks, and so does a legend of all panels.
function pale(svg, labels) {
  const others = [...svg.matchAll(/ id="(source:([^":]*):\d+)"/g)]
    .filter(([, , names]) => !names.split("|").some((name) => labels.has(decodeURIComponent(name))))
    .map(([, id]) => `[id="${id}"] > :not([id^="matplotlib.axis"], #shared)`);
  return others.length ? `${others.join(",")} { opacity: .1 !important; }` : "";
}

async function unpacked(packed) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function filter() {
  const wanted = filters.filter((select) => select.value).map((select) => [select.name, select.value]);
  for (const line of lines)
    line.hidden = wanted.some(([name, value]) => name in line.dataset && line.dataset[name] !== value);
  for (const group of document.querySelectorAll("tbody.group"))
    group.hidden = !group.querySelector("tr[data-model]:not([hidden])");
  const shown = counted.filter((line) => !line.hidden).length;
  state.textContent = wanted.length ? `${shown} of ${counted.length} lines match.` : `${counted.length} lines.`;
  for (const figure of figures) draw(figure, Object.fromEntries(wanted));
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

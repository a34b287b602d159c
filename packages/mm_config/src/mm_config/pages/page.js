"use strict";

/* Tables: a click on a heading sorts, controls above choose rows. A column says its kind. */

const keyOf = (cell) => cell.dataset.key ?? cell.textContent;

function sortRows(table, column, head) {
  const down = head.getAttribute("aria-sort") === "ascending";
  const number = head.dataset.kind === "number";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = [...table.tBodies[0].rows].map((row) => [keyOf(row.cells[column]), row]);
  const compare = number
    ? (a, b) => Number(a) - Number(b)
    : (a, b) => a.localeCompare(b, undefined, { numeric: true });
  // Cells without a value stand last in either direction.
  keyed.sort(([a], [b]) => (a === "") - (b === "") || (down ? compare(b, a) : compare(a, b)));
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function control(name, label, kind, options) {
  const input = document.createElement(kind === "choice" ? "select" : "input");
  if (kind !== "choice") input.type = kind;
  for (const text of options ?? []) input.add(new Option(text === "" ? "all" : text, text));
  if (kind === "number") input.step = "any";
  input.name = name;
  const around = document.createElement("label");
  around.append(label, input);
  return [around, input];
}

function filtersOf(table) {
  const rows = [...table.tBodies[0].rows];
  const place = document.createElement("div");
  const tests = [];
  const shown = document.createElement("output");
  place.className = "filters";
  const add = (name, label, kind, test, options) => {
    const [around, input] = control(name, label, kind, options);
    place.append(around);
    tests.push((row) => input.value === "" || test(row, input.value));
    input.addEventListener("input", apply);
  };
  const apply = () => {
    let count = 0;
    for (const row of rows) {
      row.hidden = !tests.every((test) => test(row));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${rows.length} rows`;
  };
  const texts = new Map();
  const textOf = (row) => {
    if (!texts.has(row)) texts.set(row, [...row.cells].map(keyOf).join("\n").toLowerCase());
    return texts.get(row);
  };
  add("search", "search", "search", (row, value) => textOf(row).includes(value.toLowerCase()));
  [...table.tHead.rows[0].cells].forEach((head, at) => {
    const name = head.textContent;
    const key = (row) => keyOf(row.cells[at]);
    if (head.dataset.kind === "choice") {
      const found = [...new Set(rows.map(key))].filter((text) => text !== "").sort();
      add(name, name, "choice", (row, value) => key(row) === value, ["", ...found]);
    } else if (head.dataset.kind === "number") {
      add(`${name} from`, `${name} from`, "number", (row, value) => key(row) !== "" && Number(key(row)) >= Number(value));
      add(`${name} to`, "to", "number", (row, value) => key(row) !== "" && Number(key(row)) <= Number(value));
    }
  });
  place.append(shown);
  apply();
  return place;
}

function prepareTable(table) {
  if (table.classList.contains("filtered")) table.parentElement.before(filtersOf(table));
  [...table.tHead.rows[0].cells].forEach((head, at) => {
    if (head.dataset.kind === "picture") return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    button.addEventListener("click", () => sortRows(table, at, head));
    head.replaceChildren(button);
  });
}

document.querySelectorAll("table.rows").forEach(prepareTable);

/* Curves: drawn by uPlot in the page's colours, anew when the window, the colours or the tuning change. */

const tuned = { smoothing: 0, log: false };

// An exponential moving average, divided by the weight that it has so far, so that it begins at the first value.
function smoothed(values) {
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = tuned.smoothing * mean + (1 - tuned.smoothing) * value;
    weight = tuned.smoothing * weight + (1 - tuned.smoothing);
    return mean / weight;
  });
}

// What a chart draws; a page of a server adds to it.
function toldBy(place) {
  place.told ??= JSON.parse(place.querySelector("script").textContent);
  return place.told;
}

function draw(place) {
  const told = toldBy(place);
  const log = told.tunable && tuned.log && told.ys.some((y) => y.some((value) => value > 0));
  const ys = told.tunable ? told.ys.map(smoothed) : told.ys;
  // A logarithmic scale has no place for 0 and below.
  const shown = log ? ys.map((y) => y.map((value) => (value > 0 ? value : null))) : ys;
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const options = {
    width: place.clientWidth,
    height: 172,
    scales: { x: { time: false, distr: told.log ? 3 : 1 }, y: { distr: log ? 3 : 1 } },
    axes: [{ ...axis, size: 26 }, { ...axis, size: 56 }],
    series: [
      { label: told.label },
      ...told.names.map((name, at) => ({ label: name, stroke: colour(`--curve-${(at % 5) + 1}`), width: 1.5, spanGaps: told.tunable })),
    ],
  };
  place.querySelector(".uplot")?.remove();
  new uPlot(options, [told.x, ...shown], place);
}

const drawAll = () => document.querySelectorAll(".curves").forEach(draw);
drawAll();
for (const place of document.querySelectorAll(".tuning")) {
  const [aroundSmoothing, smoothing] = control("smoothing", "smoothing", "range");
  Object.assign(smoothing, { min: 0, max: 0.99, step: 0.01, value: 0 });
  const [aroundLog, log] = control("log", "logarithmic", "checkbox");
  place.append(aroundSmoothing, aroundLog);
  place.addEventListener("input", () => {
    tuned.smoothing = Number(smoothing.value);
    tuned.log = log.checked;
    drawAll();
  });
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
let waiting = 0;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});

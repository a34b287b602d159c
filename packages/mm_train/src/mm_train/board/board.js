"use strict";

/* Commands: a button copies what stands beside it. */

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false; // Only a page of this machine, or one that came encrypted, may.
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button.copy");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  const done = await copied(code.textContent);
  if (!done) getSelection().selectAllChildren(code);
  button.textContent = done ? "copied" : "selected";
  setTimeout(() => (button.textContent = "copy"), 1500);
});

/* The table: rows are chosen and walked by keys. */

const chooser = document.getElementById("choose");
const boxes = () => [...document.querySelectorAll("#choose input[type=checkbox]")];

function countChosen() {
  if (!chooser) return;
  const chosen = boxes().filter((box) => box.checked).length;
  const bar = chooser.querySelector(".chosen");
  bar.classList.toggle("some", chosen > 0);
  bar.querySelector("button").disabled = chosen < 2;
  bar.querySelector("output").textContent = chosen === 0 ? "choose two runs or more" : `${chosen} chosen`;
}

let at = -1;
function walk(by) {
  const rows = [...document.querySelectorAll("#choose tbody tr")];
  if (!rows.length) return;
  at = Math.min(Math.max(at + by, 0), rows.length - 1);
  rows.forEach((row, place) => row.classList.toggle("at", place === at));
  rows[at].querySelector("a").focus({ preventScroll: true });
  rows[at].scrollIntoView({ block: "nearest" });
}

const keys = {
  "/": () => document.querySelector(".asking input[name=where]:not([type=hidden])")?.select(),
  j: () => walk(1),
  k: () => walk(-1),
  x: () => boxes()[at]?.click(),
  c: () => chooser?.requestSubmit(),
};

document.addEventListener("keydown", (event) => {
  const writes = event.target.matches("input:not([type=checkbox]), select, textarea");
  if (writes || event.ctrlKey || event.metaKey || event.altKey || !chooser || !keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

chooser?.addEventListener("change", countChosen);
chooser?.addEventListener("submit", (event) => {
  if (boxes().filter((box) => box.checked).length < 2) event.preventDefault();
});
countChosen();

/* What goes on: a table of runs is asked for again, the curves of a run grow by what it wrote since. */

const page = document.getElementById("page");
const ROWS_EVERY = 5000;
const NUMBERS_EVERY = 2000;

async function again(selectors) {
  const answer = await fetch(location.href);
  if (!answer.ok) return null;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const selector of selectors) {
    const [old, now] = [document.querySelector(selector), fresh.querySelector(selector)];
    if (old && now && old.outerHTML !== now.outerHTML) old.replaceWith(document.adoptNode(now));
  }
  return fresh.getElementById("page").dataset.live;
}

async function followRows() {
  const chosen = new Set(boxes().filter((box) => box.checked).map((box) => box.value));
  const focused = document.activeElement?.closest?.("#choose tbody");
  if (!focused) {
    await again(["#choose tbody", "#count"]);
    for (const box of boxes()) box.checked = chosen.has(box.value);
    countChosen();
  }
  setTimeout(followRows, ROWS_EVERY);
}

// Gives the lines of the charts what was written since; false where a number has no line yet.
function grow(points) {
  const charts = [...document.querySelectorAll("#curves .curves")].map((place) => [place, toldBy(place)]);
  const known = new Set(charts.flatMap(([, told]) => told.lines ?? []));
  if (points.some((point) => Object.keys(point).some((name) => name !== "step" && !known.has(name)))) return false;
  for (const [place, told] of charts) {
    const own = points.filter((point) => told.lines?.some((name) => name in point));
    for (const point of own) {
      const last = told.x.length - 1;
      if (point.step < told.x[last]) continue;
      if (point.step > told.x[last]) {
        told.x.push(point.step);
        told.ys.forEach((y) => y.push(null));
      }
      told.lines.forEach((name, line) => {
        if (name in point) told.ys[line][told.x.length - 1] = point[name];
      });
    }
    if (own.length) draw(place);
  }
  return true;
}

async function renew() {
  const live = await again(["#state", "#facts", "#curves", "#times", "#samples"]);
  drawAll();
  return live;
}

async function followNumbers(url, offset) {
  let next = offset;
  try {
    const told = await (await fetch(`${url}?offset=${offset}`)).json();
    const fits = !told.again && grow(told.points);
    next = told.offset;
    if (told.status !== "running") {
      await renew();
      return;
    }
    if (!fits) await renew();
  } catch {
    // The server is gone for now; the page stays as it is and asks again.
  }
  setTimeout(() => followNumbers(url, next), NUMBERS_EVERY);
}

const live = page?.dataset.live;
if (live === "rows") setTimeout(followRows, ROWS_EVERY);
else if (live) followNumbers(live, Number(page.dataset.offset ?? 0));

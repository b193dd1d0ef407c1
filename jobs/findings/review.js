"use strict";
// Verdicts stay in this browser, under the run's name, until they are downloaded.
const cards = [...document.querySelectorAll(".card")];
const place = "attentdiffernet verdicts " + document.title;
const keys = { g: "good", d: "defect", u: "unsure" };
let marks = {};
try { marks = JSON.parse(localStorage.getItem(place)) || {}; } catch { /* a page opened from a file may have no storage */ }

const name = (card) => JSON.stringify([card.dataset.uri, card.dataset.etag, card.dataset.box]);

function show(card) {
  const mark = marks[name(card)];
  if (mark) card.dataset.verdict = mark.verdict; else delete card.dataset.verdict;
  for (const button of card.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(Boolean(mark) && button.dataset.verdict === mark.verdict));
  }
}

function count() {
  const done = cards.filter((card) => marks[name(card)]).length;
  const progress = document.getElementById("progress");
  if (progress) progress.textContent = done + " of " + cards.length + " marked";
}

function mark(card, verdict) {
  const same = marks[name(card)] && marks[name(card)].verdict === verdict;
  if (same) delete marks[name(card)]; else marks[name(card)] = { verdict, at: new Date().toISOString() };
  try { localStorage.setItem(place, JSON.stringify(marks)); } catch { /* see above */ }
  show(card);
  count();
}

function move(from, step) {
  const next = cards[Math.min(cards.length - 1, Math.max(0, cards.indexOf(from) + step))];
  // The bar stays at the top, over whatever is scrolled there.
  document.documentElement.style.scrollPaddingTop = document.querySelector(".bar").offsetHeight + 8 + "px";
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "start" });
}

const quote = (text) => '"' + String(text).replaceAll('"', '""') + '"';

function download() {
  const rows = cards.filter((card) => marks[name(card)]).map((card) => {
    const found = marks[name(card)];
    return [card.dataset.uri, card.dataset.etag, card.dataset.box, found.verdict, "", found.at].map(quote).join(",");
  });
  const content = ["image_uri,image_etag,box,verdict,by,at", ...rows].join("\r\n") + "\r\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/csv" }));
  link.download = "verdicts.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

for (const card of cards) {
  show(card);
  card.addEventListener("click", (event) => {
    if (event.target.dataset.verdict && event.target.tagName === "BUTTON") mark(card, event.target.dataset.verdict);
  });
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !cards.length) return;
  const here = document.activeElement && document.activeElement.closest(".card");
  const verdict = keys[String(event.key).toLowerCase()];
  if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
    move(here || cards[0], here ? (event.key === "ArrowRight" ? 1 : -1) : 0);
    event.preventDefault();
  } else if (verdict && !event.repeat) { // a key that is held down marks one photo, not all that follow
    const card = here || cards[0];
    mark(card, verdict);
    move(card, 1);
    event.preventDefault();
  }
});
const button = document.getElementById("download");
if (button) button.addEventListener("click", download);
count();

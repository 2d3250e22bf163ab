// The gallery of images: a page of them at a time, so that their number does not matter.

import { get, planes, store } from "./api.js";
import { attempt } from "./message.js";
import { hintOver, look, paint } from "./overlay.js";

const list = document.getElementById("image-list");
const template = document.getElementById("image-card");
const field = document.getElementById("search");
const uncertain = document.getElementById("uncertain");
const pageLength = Number(document.body.dataset.pageLength);

export const shown = { start: 0, total: 0, images: [] };
const painted = new Map(); // index of an image -> { canvas, planes }
const opened = new EventTarget();

// Call `use` with an image's place on the page when a person opens it.
export function onOpen(use) {
  opened.addEventListener("open", (event) => use(event.detail));
}

const nearView = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) {
      nearView.unobserve(target);
      attempt(() => fetchMask(Number(target.dataset.index)));
    }
  }
}, { rootMargin: "300px" });

async function fetchMask(index) {
  const tile = painted.get(index);
  tile.planes = await planes(index, "thumbnail");
  paint(tile.canvas, tile.planes);
}

function repaint() {
  for (const { canvas, planes: known } of painted.values()) if (known) paint(canvas, known);
}

function newTile(image, place) {
  const item = template.content.firstElementChild.cloneNode(true);
  const part = (name) => item.querySelector(name);
  const tile = { canvas: part("canvas"), planes: null };
  painted.set(image.index, tile);
  item.dataset.index = image.index;
  const notes = [];
  if (image.confidence !== null) notes.push(`${Math.round(100 * image.confidence)} % confident`);
  if (image.corrections) notes.push(`${image.corrections} corrected`);
  part(".file").textContent = image.file;
  part(".note").textContent = notes.join(" · ");
  part("img").src = `/images/${image.index}/thumbnail.jpg`;
  part("button").addEventListener("click", () => opened.dispatchEvent(new CustomEvent("open", { detail: place })));
  hintOver(part(".picture"), () => tile.planes);
  nearView.observe(item);
  return item;
}

let asked = 0;

export async function load(start = 0) {
  asked += 1;
  const mine = asked;
  const query = new URLSearchParams({ start, search: field.value, order: uncertain.checked ? "uncertain" : "name" });
  const page = await get(`/images?${query}`);
  if (mine !== asked) return; // a later question has been asked meanwhile
  Object.assign(shown, page, { start });
  nearView.disconnect();
  painted.clear();
  list.replaceChildren(...page.images.map(newTile));
  const last = start + page.images.length;
  document.getElementById("found").textContent =
    page.total ? `${start + 1}–${last} of ${page.total}` : "none found";
  document.getElementById("page-number").textContent =
    `Page ${1 + Math.floor(start / pageLength)} of ${Math.max(1, Math.ceil(page.total / pageLength))}`;
  document.getElementById("page-back").disabled = start === 0;
  document.getElementById("page-on").disabled = last >= page.total;
}

// Go on by pages; false at either end.
export async function turn(by) {
  const start = shown.start + by * pageLength;
  if (start < 0 || start >= shown.total) return false;
  return attempt(() => load(start));
}

export function search(text) {
  field.value = text;
  document.body.dataset.pane = "images";
  return attempt(() => load());
}

let timer = 0;
field.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => attempt(() => load()), 150);
});
uncertain.addEventListener("change", () => attempt(() => load()));
document.getElementById("filters").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("page-back").addEventListener("click", () => turn(-1));
document.getElementById("page-on").addEventListener("click", () => turn(1));

const opacity = document.getElementById("opacity");
const outlines = document.getElementById("outlines");

function changeLook() {
  look.opacity = opacity.value / 100;
  look.outlines = outlines.checked;
  store.dispatchEvent(new Event("look"));
}

opacity.addEventListener("input", changeLook);
outlines.addEventListener("change", changeLook);
store.addEventListener("look", repaint);
store.addEventListener("change", repaint);

const fade = (by) => () => { opacity.value = Number(opacity.value) + by; changeLook(); };

export const keys = {
  g: () => { document.body.dataset.pane = "images"; list.querySelector(".tile")?.focus(); },
  "/": () => { document.body.dataset.pane = "images"; field.focus(); field.select(); },
  o: () => { outlines.checked = !outlines.checked; changeLook(); },
  "[": fade(-10),
  "]": fade(10),
  ",": () => turn(-1),
  ".": () => turn(1),
};

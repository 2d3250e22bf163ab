// One image, large: what is under the pointer, and regions that a person corrects.

import { planes, store } from "./api.js";
import { attempt, say } from "./message.js";
import { describe, hintOver, paint, pixelAt, regionAt } from "./overlay.js";
import { load, onOpen, shown, turn } from "./images.js";

const byId = (id) => document.getElementById(id);
const [dialog, stage, canvas, cross, becomes] = ["viewer", "stage", "view-mask", "cross", "becomes"].map(byId);
const COARSE_PX = 12;

let place = 0; // of the image on the page of the gallery
let known = null;
let point = null; // in pixels of the planes
let picked = null; // the region that was picked: its point and its pixels

const image = () => shown.images[place];

function show() {
  if (!known) return;
  paint(canvas, known, picked?.pixels);
  cross.hidden = !point;
  if (point) {
    cross.style.left = `${100 * (point.x + 0.5) / known.width}%`;
    cross.style.top = `${100 * (point.y + 0.5) / known.height}%`;
  }
  byId("region").textContent = picked
    ? `Region: ${describe(known, picked.point)}` : "Pick a region to give it another class.";
  becomes.disabled = !picked;
  byId("correct").disabled = !picked;
}

function fillChoices() {
  const own = picked && store.classOf(known.clusters[picked.point.y * known.width + picked.point.x]);
  const before = becomes.value;
  becomes.replaceChildren(...store.whole().filter((entry) => entry !== own)
    .map((entry) => new Option(entry.hidden ? `${entry.name} (hidden)` : entry.name, entry.id)));
  if ([...becomes.options].some((option) => option.value === before)) becomes.value = before;
}

async function open(at) {
  place = at;
  [known, point, picked] = [null, null, null];
  stage.setAttribute("aria-busy", "true");
  const { index, file } = image();
  byId("viewer-title").textContent = file;
  byId("view").src = `/images/${index}/view.jpg`;
  byId("view").alt = file;
  if (!dialog.open) dialog.showModal();
  stage.focus();
  await attempt(async () => {
    const found = await planes(index, "view");
    if (image().index !== index) return;
    known = found;
    stage.setAttribute("aria-busy", "false");
    stage.style.setProperty("--ratio", known.width / known.height);
    fillChoices();
    show();
  });
}

async function step(by) {
  if (shown.images[place + by]) await open(place + by);
  else if (await turn(by)) await open(by > 0 ? 0 : shown.images.length - 1);
}

function pick(at) {
  if (!known) return;
  point = at;
  picked = { point: at, pixels: regionAt(known, at) };
  fillChoices();
  show();
}

function move(right, down) {
  if (!known) return;
  point ??= { x: known.width >> 1, y: known.height >> 1 };
  point = {
    x: Math.min(known.width - 1, Math.max(0, point.x + right)),
    y: Math.min(known.height - 1, Math.max(0, point.y + down)),
  };
  show();
  say(describe(known, point));
}

async function correct() {
  const { index } = image();
  // The pixel of the mask that this pixel shows: the one under its centre, as on the server.
  const own = (at, shownSize, size) => Math.floor((2 * at + 1) * size / (2 * shownSize));
  const x = own(picked.point.x, known.width, known.maskWidth);
  const y = own(picked.point.y, known.height, known.maskHeight);
  await attempt(async () => {
    await store.correct(index, { x, y, to: Number(becomes.value) });
    say("Corrected.");
    stage.focus();
  });
}

// A correction, or one that was taken back, changes masks; anything else only how they are painted.
let corrections = null; // how many the page has asked masks with
store.addEventListener("change", () => {
  corrections ??= store.corrections;
  if (corrections === store.corrections) show();
  else if (dialog.open) open(place);
  else refreshGallery();
});

async function refreshGallery() {
  if (corrections === store.corrections) return;
  corrections = store.corrections;
  await attempt(() => load(shown.start));
}
store.addEventListener("look", show);

onOpen(open);
hintOver(stage, () => known);
stage.addEventListener("click", (event) => { if (known) pick(pixelAt(stage, event, known)); });
stage.addEventListener("keydown", (event) => {
  const px = event.shiftKey ? 1 : COARSE_PX;
  const moves = { ArrowLeft: [-px, 0], ArrowRight: [px, 0], ArrowUp: [0, -px], ArrowDown: [0, px] };
  if (event.key in moves) {
    event.preventDefault();
    move(...moves[event.key]);
  } else if (event.key === "Enter" && point) {
    event.preventDefault();
    pick(point);
    becomes.focus();
  }
});
byId("correction").addEventListener("submit", (event) => { event.preventDefault(); correct(); });
byId("viewer-back").addEventListener("click", () => step(-1));
byId("viewer-on").addEventListener("click", () => step(1));
byId("viewer-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", async () => {
  const { index } = image();
  await refreshGallery();
  document.querySelector(`[data-index="${index}"] .tile`)?.focus();
});

export const keys = { ",": () => step(-1), ".": () => step(1) };

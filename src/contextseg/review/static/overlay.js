// Masks over pictures: painted here, so that a new name, colour or merge shows at once.

import { store } from "./api.js";

export const look = { opacity: 0.55, outlines: false };

const WHITE = 0xffffffff;
const BLACK = 0xff000000;

// Colour of each cluster as the four bytes of a canvas; a hidden class lets the picture through.
function colours() {
  const alpha = Math.round(255 * look.opacity);
  return Uint32Array.from(store.classes, (_, cluster) => {
    const { colour: [red, green, blue], hidden } = store.classOf(cluster);
    return hidden ? 0 : ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  });
}

// `picked` marks the pixels of one region with 1.
export function paint(canvas, { clusters, width, height }, picked = null) {
  const colour = colours();
  const survivor = Uint32Array.from(store.classes, (entry) => entry.survivor);
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const border = (values, i, x, y) =>
    (x + 1 < width && values(i) !== values(i + 1)) || (y + 1 < height && values(i) !== values(i + width));
  const shown = (i) => survivor[clusters[i]];
  const inRegion = (i) => picked[i];
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      pixels[i] = colour[clusters[i]];
      if (look.outlines && border(shown, i, x, y)) pixels[i] = WHITE;
      if (picked && border(inRegion, i, x, y)) pixels[i] = (x + y) % 8 < 4 ? WHITE : BLACK;
    }
  }
  context.putImageData(image, 0, 0);
}

// The pixel under a pointer of a picture that fills its element with its ratio kept.
export function pixelAt(element, event, { width, height }) {
  const box = element.getBoundingClientRect();
  const scale = Math.min(box.width / width, box.height / height);
  const within = (fromCentre, size) => Math.min(size - 1, Math.max(0, Math.floor(fromCentre / scale + size / 2)));
  return {
    x: within(event.clientX - box.left - box.width / 2, width),
    y: within(event.clientY - box.top - box.height / 2, height),
  };
}

export function describe({ clusters, confidence, width }, { x, y }) {
  const entry = store.classOf(clusters[y * width + x]);
  const certain = confidence ? ` · ${Math.round(confidence[y * width + x] / 2.55)} % confident` : "";
  return `${entry.name}${entry.hidden ? " (hidden)" : ""}${certain}`;
}

// The pixels of one class that are connected to a pixel by their sides.
export function regionAt({ clusters, width, height }, { x, y }) {
  const survivor = store.classes.map((entry) => entry.survivor);
  const wanted = survivor[clusters[y * width + x]];
  const region = new Uint8Array(width * height);
  const waiting = [y * width + x];
  region[waiting[0]] = 1;
  while (waiting.length) {
    const i = waiting.pop();
    const column = i % width;
    const near = [
      column > 0 ? i - 1 : -1, column + 1 < width ? i + 1 : -1,
      i - width, i + width < width * height ? i + width : -1,
    ];
    for (const j of near) {
      if (j >= 0 && !region[j] && survivor[clusters[j]] === wanted) {
        region[j] = 1;
        waiting.push(j);
      }
    }
  }
  return region;
}

const hint = document.getElementById("hint");

// Say what is under the pointer while it is over a picture; `planesOf` gives what is known of it, or nothing yet.
export function hintOver(element, planesOf) {
  element.addEventListener("pointermove", (event) => {
    const known = planesOf();
    hint.hidden = !known;
    if (!known) return;
    (element.closest("dialog") ?? document.body).append(hint); // a dialog lies above everything outside of it
    hint.textContent = describe(known, pixelAt(element, event, known));
    hint.style.left = `${Math.min(event.clientX + 14, window.innerWidth - hint.offsetWidth - 8)}px`;
    hint.style.top = `${Math.min(event.clientY + 18, window.innerHeight - hint.offsetHeight - 8)}px`;
  });
  element.addEventListener("pointerleave", () => { hint.hidden = true; });
}

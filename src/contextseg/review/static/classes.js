// The gallery of classes: colour, name, share, examples; merging and hiding.

import { store } from "./api.js";
import { splitClass } from "./jobs.js";
import { attempt } from "./message.js";
import { search } from "./images.js";

const list = document.getElementById("class-list");
const template = document.getElementById("class-card");
const nExamples = Number(document.body.dataset.nExamples);
const cards = [];

const hex = (colour) => `#${colour.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
const bytes = (text) => [1, 3, 5].map((start) => parseInt(text.slice(start, start + 2), 16));

function newCard(id) {
  const card = template.content.firstElementChild.cloneNode(true);
  const part = (name) => card.querySelector(`.${name}`);
  card.dataset.id = id;
  for (let number = 0; number < nExamples; number += 1) {
    const picture = new Image();
    picture.loading = "lazy";
    picture.alt = "";
    picture.addEventListener("error", () => picture.remove());
    picture.src = `/clusters/${id}/${number}.jpg`;
    part("examples").append(picture);
  }
  part("name").addEventListener("change", () => act({ action: "name", id, name: part("name").value }));
  part("name").addEventListener("keydown", (event) => {
    if (event.key === "Enter") card.focus();
  });
  part("colour").addEventListener("change", () => act({ action: "colour", id, colour: bytes(part("colour").value) }));
  part("hide").addEventListener("click", () =>
    act({ action: "hide", ids: [id], undo: store.classes[id].hidden }));
  part("split").addEventListener("click", () => splitClass(store.classes[id]));
  part("find").addEventListener("click", () => search(store.classes[id].name));
  part("merge").addEventListener("change", async () => {
    const into = Number(part("merge").value);
    if (await act({ action: "merge", into, others: [id] })) cards[into].focus();
  });
  return card;
}

function act(action) {
  return attempt(() => store.act(action), update);
}

function update() {
  while (cards.length < store.classes.length) {
    cards.push(newCard(cards.length));
    list.append(cards.at(-1));
  }
  store.classes.forEach((entry) => updateCard(cards[entry.id], entry));
  document.getElementById("classes-title").textContent =
    `Classes (${store.whole().filter((entry) => !entry.hidden).length})`;
}

function updateCard(card, entry) {
  const part = (name) => card.querySelector(`.${name}`);
  card.hidden = entry.survivor !== entry.id;
  card.classList.toggle("off", entry.hidden);
  card.setAttribute("aria-label", `${entry.name}${entry.hidden ? ", hidden" : ""}`);
  part("colour").value = hex(entry.colour);
  part("colour").setAttribute("aria-label", `Colour of ${entry.name}`);
  part("name").value = entry.name;
  part("name").setAttribute("aria-label", `Name of class ${entry.id}`);
  part("share").textContent = `${(100 * entry.share).toFixed(1)} %`;
  part("find").setAttribute("aria-label", `Images of ${entry.name}`);
  part("hide").textContent = entry.hidden ? "Show" : "Hide";
  part("hide").setAttribute("aria-label", `${entry.hidden ? "Show" : "Hide"} ${entry.name}`);
  part("split").setAttribute("aria-label", `Split ${entry.name}`);
  part("merge").setAttribute("aria-label", `Merge ${entry.name} into`);
  part("merge").replaceChildren(new Option("Merge into…", ""),
    ...store.whole().filter((other) => other !== entry).map((other) => new Option(other.name, other.id)));
  part("parts").replaceChildren(...store.classes
    .filter((other) => other.survivor === entry.id && other !== entry)
    .map((other) => partOf(other)));
}

function partOf(entry) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = `+ ${entry.name} ✕`;
  button.setAttribute("aria-label", `Take ${entry.name} out of the class`);
  button.addEventListener("click", async () => {
    if (await act({ action: "merge", into: entry.merged_into, others: [entry.id], undo: true })) cards[entry.id].focus();
  });
  item.append(button);
  return item;
}

store.addEventListener("change", update);

const focused = () => document.activeElement.closest?.(".card");
const inCard = (name, use) => () => { const card = focused(); if (card) use(card.querySelector(`.${name}`)); };

function step(by) {
  const shown = cards.filter((card) => !card.hidden);
  const at = shown.indexOf(focused());
  shown[at < 0 ? 0 : Math.min(shown.length - 1, Math.max(0, at + by))]?.focus();
}

export const keys = {
  j: () => step(1),
  k: () => step(-1),
  n: inCard("name", (field) => { field.focus(); field.select(); }),
  m: inCard("merge", (field) => field.focus()),
  h: inCard("hide", (button) => button.click()),
  s: inCard("split", (button) => button.click()),
  i: inCard("find", (button) => button.click()),
};

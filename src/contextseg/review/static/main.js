// Brings the parts of the page together: keys, undo and redo, panes, help.

import { store } from "./api.js";
import { attempt } from "./message.js";
import * as classes from "./classes.js";
import * as images from "./images.js";
import * as viewer from "./viewer.js";
import { exportMasks } from "./jobs.js";

const byId = (id) => document.getElementById(id);
const undo = () => attempt(() => store.act({ action: "undo" }));
const redo = () => attempt(() => store.act({ action: "redo" }));
const help = () => byId("help").showModal();

const everywhere = { u: undo, r: redo, "?": help, o: images.keys.o, "[": images.keys["["], "]": images.keys["]"] };
const onPage = { ...everywhere, ...classes.keys, ...images.keys, e: exportMasks };
const inViewer = { ...everywhere, ...viewer.keys };

function currentKeys() {
  if (byId("help").open) return {};
  return byId("viewer").open ? inViewer : onPage;
}

const isTyping = (element) => element.matches("input:not([type=checkbox], [type=range], [type=color]), select");

document.addEventListener("keydown", (event) => {
  const target = event.target;
  if (isTyping(target)) {
    if (event.key === "Escape" && !target.closest("dialog")) (target.closest(".card") ?? byId("export")).focus();
    return;
  }
  if (event.ctrlKey || event.metaKey) {
    if (event.key.toLowerCase() !== "z") return;
    event.preventDefault();
    (event.shiftKey ? redo : undo)();
    return;
  }
  const use = event.altKey ? null : currentKeys()[event.key];
  if (use) {
    event.preventDefault();
    use();
  }
});

byId("undo").addEventListener("click", undo);
byId("redo").addEventListener("click", redo);
byId("help-open").addEventListener("click", help);
byId("help-close").addEventListener("click", () => byId("help").close());

function showPane(name) {
  document.body.dataset.pane = name;
}

const panes = document.querySelectorAll("[data-pane]:not(body)");
panes.forEach((button) => button.addEventListener("click", () => showPane(button.dataset.pane)));
new MutationObserver(() => panes.forEach((button) =>
  button.setAttribute("aria-pressed", button.dataset.pane === document.body.dataset.pane),
)).observe(document.body, { attributeFilter: ["data-pane"] });

store.addEventListener("change", () => {
  for (const name of ["undo", "redo"]) {
    byId(name).disabled = !store[name];
    byId(name).title = store[name] ? `${name} "${store[name]}"` : "";
  }
});

showPane("classes");
attempt(async () => {
  await store.load();
  await images.load();
});

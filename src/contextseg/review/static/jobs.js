// Long work that is begun here, done on the server, and watched until it ends: writing the masks, splitting a class.

import { get, post } from "./api.js";
import { attempt, say } from "./message.js";

const POLL_MS = 300;

// Begin a job, say how far it is, and return its last state.
async function watched(path, body, told) {
  let state = await post(path, body);
  while (state.running) {
    say(told(state), { stay: true });
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
    state = await get(path);
  }
  if (state.error) throw new Error(state.error);
  return state;
}

const button = document.getElementById("export");

export async function exportMasks() {
  button.disabled = true;
  await attempt(async () => {
    const state = await watched("/export", {}, ({ done, total }) => `Exporting: ${done} of ${total} masks`);
    say(`Exported ${state.done} masks to ${state.out}`, { stay: true });
  });
  button.disabled = false;
}

export async function splitClass(entry) {
  await attempt(async () => {
    const { out } = await watched("/split", { cluster: entry.id, into: 2 },
      () => `Splitting ${entry.name}: looking at the images`);
    say(`${entry.name} is two classes in a run of its own: contextseg review ${out} …`, { stay: true });
  });
}

button.addEventListener("click", exportMasks);

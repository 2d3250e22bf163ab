// Writing the masks: begun here, done on the server, watched until it ends.

import { get, post } from "./api.js";
import { attempt, say } from "./message.js";

const button = document.getElementById("export");
const POLL_MS = 300;

export async function exportMasks() {
  button.disabled = true;
  await attempt(async () => {
    let state = await post("/export");
    while (state.running) {
      say(`Exporting: ${state.done} of ${state.total} masks`, { stay: true });
      await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
      state = await get("/export");
    }
    if (state.error) throw new Error(state.error);
    say(`Exported ${state.done} masks to ${state.out}`, { stay: true });
  });
  button.disabled = false;
}

button.addEventListener("click", exportMasks);

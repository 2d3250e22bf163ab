// What the server is asked, and the state that all parts of the page show.

async function answered(response) {
  if (response.ok) return response;
  const text = await response.text();
  let reason = text;
  try { reason = JSON.parse(text).error; } catch { /* not every refusal is JSON */ }
  throw new Error(reason);
}

export async function get(path) {
  return (await answered(await fetch(path))).json();
}

export async function post(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return (await answered(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }))).json();
}

// The planes of a mask: clusters, and confidence where there is one, one value per pixel of the picture that is shown.
export async function planes(index, size) {
  const response = await answered(await fetch(`/images/${index}/${size}.planes`));
  const number = (name) => Number(response.headers.get(name));
  const [width, height] = [number("X-Width"), number("X-Height")];
  const buffer = await response.arrayBuffer();
  const values = number("X-Bytes") === 1 ? new Uint8Array(buffer) : new Uint16Array(buffer);
  const plane = (i) => values.subarray(i * width * height, (i + 1) * width * height);
  return {
    width, height,
    maskWidth: number("X-Mask-Width"), maskHeight: number("X-Mask-Height"),
    clusters: plane(0), confidence: number("X-Planes") > 1 ? plane(1) : null,
  };
}

class Store extends EventTarget {
  classes = [];

  async load() { this.set(await get("/state")); }

  async act(action) { this.set(await post("/actions", action)); }

  async correct(index, correction) {
    this.set(await post(`/images/${index}/corrections`, correction));
  }

  set(state) {
    Object.assign(this, state);
    this.dispatchEvent(new Event("change"));
  }

  // The class that a cluster counts as.
  classOf(cluster) { return this.classes[this.classes[cluster].survivor]; }

  // The classes that are not part of another one.
  whole() { return this.classes.filter((entry) => entry.survivor === entry.id); }
}

export const store = new Store();

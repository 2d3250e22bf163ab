// The line under the header, or in the window that is open: what has happened, or what has gone wrong.

const header = document.querySelector("header");
const line = document.getElementById("message");
let timer = 0;

export function say(text, { error = false, stay = false } = {}) {
  clearTimeout(timer);
  const dialog = document.querySelector("dialog[open]"); // all else is out of reach while one is open
  if (dialog) dialog.append(line);
  else header.after(line);
  line.textContent = text;
  line.classList.toggle("error", error);
  line.hidden = false;
  if (!error && !stay) timer = setTimeout(() => { line.hidden = true; }, 6000);
}

// Run something that may be refused; what is refused is said, and `refused` puts the page back.
export async function attempt(work, refused = () => {}) {
  try {
    await work();
    if (line.classList.contains("error")) line.hidden = true;
    return true;
  } catch (error) {
    say(error.message, { error: true });
    refused();
    return false;
  }
}

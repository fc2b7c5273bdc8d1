// Asks for the status every two seconds. When it changed, the page is fetched again and the sections that
// differ are swapped: the server alone makes HTML, so it alone has to escape.
"use strict";

const PERIOD_MS = 2000;
const PICTURE_PAUSE_MS = 3000;
const MOST_PICTURE_CALLS = 10;
const connection = document.getElementById("connection");
const made = new Map(); // section id -> the HTML it was last made from
let known = null;

async function refresh() {
  const answer = await fetch(document.body.dataset.status, { cache: "no-store" });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const status = await answer.text();
  if (status !== known) {
    await swapSections();
    known = status;
  }
}

async function swapSections() {
  const answer = await fetch(location.href, { cache: "no-store" });
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(old.id);
    if (fresh && fresh.innerHTML !== made.get(old.id)) {
      old.replaceChildren(...document.importNode(fresh, true).childNodes);
      made.set(old.id, fresh.innerHTML);
    }
  }
}

async function watch() {
  try {
    if (!document.hidden) await refresh();
    connection.textContent = "";
  } catch {
    connection.textContent = "No connection to the server; trying again";
  }
  setTimeout(watch, PERIOD_MS);
}

async function post(button) {
  const line = document.getElementById("answer");
  button.disabled = true;
  try {
    const answer = await fetch(button.dataset.post, { method: "POST" });
    const body = await answer.json();
    line.textContent = answer.ok ? "Done." : body.error;
  } catch {
    line.textContent = "The server did not answer.";
  }
  button.disabled = false;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-post]");
  if (button) post(button);
});

// The server computes few pictures at once and says so to the others, which ask again. Errors of images do not
// bubble: capture them.
document.addEventListener("error", (event) => {
  const image = event.target;
  if (!(image instanceof HTMLImageElement)) return;
  const asked = Number(image.dataset.asked ?? 0) + 1;
  image.dataset.asked = asked;
  if (asked >= MOST_PICTURE_CALLS) return;
  image.classList.add("missing");
  const address = image.src;
  setTimeout(() => { image.src = address; }, PICTURE_PAUSE_MS);
}, true);
document.addEventListener("load", (event) => {
  if (event.target instanceof HTMLImageElement) event.target.classList.remove("missing");
}, true);

for (const section of document.querySelectorAll("[data-live]")) made.set(section.id, section.innerHTML);
watch();

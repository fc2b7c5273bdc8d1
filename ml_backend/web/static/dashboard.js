// Asks for the status every two seconds. When it changed, the page is fetched again and the sections that
// differ are swapped: the server alone makes HTML, so it alone has to escape.
"use strict";

const PERIOD_MS = 2000;
const PICTURE_PAUSE_MS = 3000;
const MOST_PICTURE_CALLS = 3;
const connection = document.getElementById("connection");
const made = new Map(); // section id -> the HTML it was last made from
let known = null;
let showing = false;

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
  startPictures();
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

// The server computes few pictures at once, so they are asked for one after the other; one that is refused, because
// somebody else looks too, is asked for again.
async function showPictures() {
  let image;
  while ((image = document.querySelector("img[data-src]"))) {
    const address = image.dataset.src;
    for (let calls = 0; calls < MOST_PICTURE_CALLS && image.isConnected; calls += 1) {
      image.src = address;
      if (await image.decode().then(() => true, () => false)) break;
      await new Promise((resolve) => setTimeout(resolve, PICTURE_PAUSE_MS));
    }
    image.removeAttribute("data-src");
  }
  showing = false;
}

function startPictures() {
  if (showing) return;
  showing = true;
  showPictures();
}

for (const section of document.querySelectorAll("[data-live]")) made.set(section.id, section.innerHTML);
watch();
startPictures();

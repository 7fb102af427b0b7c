// Shows one part of the page at a time, by the hash of the address. A part gets new devices each time.

import { board } from "./board.js";
import { sharedDocument } from "./document.js";
import { live } from "./live.js";
import { notifications } from "./notifications.js";

const PARTS = { live, notifications, board, document: sharedDocument };

let stop = () => {};

function show({ focus }) {
  const name = location.hash.slice(1) in PARTS ? location.hash.slice(1) : "live";
  stop();
  for (const part of document.querySelectorAll(".part")) {
    part.hidden = part.id !== `part-${name}`;
    part.querySelector(".devices").replaceChildren();
  }
  for (const link of document.querySelectorAll("nav a")) {
    const isCurrent = link.hash === `#${name}`;
    if (isCurrent) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    if (isCurrent) link.parentElement.scrollLeft = link.offsetLeft - 40;
  }
  const part = document.getElementById(`part-${name}`);
  const title = part.querySelector("h2");
  document.title = `${title.textContent} · tower-channels`;
  stop = PARTS[name](part);
  scrollTo(0, 0);
  if (focus) title.focus({ preventScroll: true });
}

addEventListener("hashchange", () => show({ focus: true }));
addEventListener("pagehide", ({ persisted }) => persisted || stop());
show({ focus: false });

// The people in a room, as a row of faces under the bar; and the state of this page's user: whether they are typing,
// and whether they are looking at the page.

const $ = (id) => document.getElementById(id);

// ---- The row --------------------------------------------------------------------------------------------------

const faces = new Map(); // name -> <li>

// Shows `people`, each with a name, a number of tabs, and the flags `me`, `typing` and `away`. People who stay keep
// their place and newcomers go last, so that nothing moves needlessly.
export function showPeople(people) {
  const here = new Set(people.map((person) => person.name));
  for (const [name, face] of faces) {
    if (here.has(name)) continue;
    face.remove();
    faces.delete(name);
  }
  for (const person of people) {
    if (!faces.has(person.name)) faces.set(person.name, newFace(person));
    describe(faces.get(person.name), person);
  }
  const count = people.length === 0 ? "" : `${people.length} here`;
  if ($("count").textContent !== count) $("count").textContent = count;
  $("count").title = people.map((person) => person.name).join(", ");
  showTyping(people.filter((person) => person.typing && !person.me).map((person) => person.name));
}

function newFace({ name, me }) {
  const face = $("person-template").content.firstElementChild.cloneNode(true);
  face.style.setProperty("--hue", hue(name));
  face.querySelector(".avatar").textContent = initials(name);
  face.querySelector(".name").textContent = name;
  if (me) $("faces").prepend(face);
  else $("faces").append(face);
  return face;
}

function describe(face, { name, me, tabs, typing, away }) {
  const details = [me && "you", tabs > 1 && `${tabs} tabs`].filter(Boolean).join(", ");
  const doing = typing && !me ? "typing" : away ? "away" : "";
  face.dataset.doing = doing;
  face.dataset.tabs = tabs > 1 ? tabs : "";
  face.title = name + (details && ` (${details})`) + (doing && `, ${doing}`);
  face.querySelector(".more").textContent = face.title.slice(name.length); // for screen readers
}

function showTyping(names) {
  const who = names.length > 2 ? "Several people" : names.join(" and ");
  const text = names.length === 0 ? "" : `${who} ${names.length === 1 ? "is" : "are"} typing`;
  if ($("typing").textContent !== text) $("typing").textContent = text;
}

export function initials(name) {
  const words = name.trim().split(/\s+/);
  const letters = words.length > 1 ? [words[0], words.at(-1)] : words;
  return letters.map((word) => [...word][0] ?? "").join("").toUpperCase();
}

// The colour of a name, the same on every page.
export function hue(name) {
  let hash = 2166136261; // FNV-1a
  for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
  return (hash >>> 0) % 360;
}

// ---- The user of this page --------------------------------------------------------------------------------------

const REPEAT_MS = 2_000; // how often typing is reported; the server assumes a pause after 4 s
const AWAY_MS = 10_000; // how long the window must lack the focus until the user is away

// Calls `report` whenever the state returned by `now` should be sent to the others.
export class Doing {
  #report;
  #typedAt = 0; // when typing was last reported; 0 if its end was reported
  #away = false;
  #timer;

  constructor(report) {
    this.#report = report;
    addEventListener("blur", () => this.#updateFocus());
    addEventListener("focus", () => this.#updateFocus());
    document.addEventListener("visibilitychange", () => this.#updateFocus());
    this.#updateFocus();
  }

  now() {
    return { typing: Date.now() - this.#typedAt < REPEAT_MS, away: this.#away };
  }

  // The text has changed; `typing` is false if it is empty now.
  textChanged(typing) {
    if (typing ? this.now().typing : this.#typedAt === 0) return;
    this.#typedAt = typing ? Date.now() : 0;
    this.#report();
  }

  // The text was sent, which ends the typing on the server too.
  messageSent() {
    this.#typedAt = 0;
  }

  #updateFocus() {
    clearTimeout(this.#timer);
    const focused = !document.hidden && document.hasFocus();
    if (!focused) this.#timer = setTimeout(() => this.#setAway(true), AWAY_MS);
    else if (this.#away) this.#setAway(false);
  }

  #setAway(away) {
    this.#away = away;
    this.#report();
  }
}

// The people of a room, in one row under the bar: a face for each of them. Here is also what the page says of the person
// in front of it: whether they type, and whether they look at it at all.

const $ = (id) => document.getElementById(id);

// ---- The row --------------------------------------------------------------------------------------------------

const faces = new Map(); // name -> its <li>

// Each of `people` has a name, how many tabs they have open here, and whether they are `me`, typing and away. Whoever
// stays keeps their place, newcomers come last: nothing moves that need not.
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
  const known = [me && "you", tabs > 1 && `${tabs} tabs`].filter(Boolean).join(", ");
  const doing = typing && !me ? "typing" : away ? "away" : "";
  face.dataset.doing = doing;
  face.dataset.tabs = tabs > 1 ? tabs : "";
  face.title = name + (known && ` (${known})`) + (doing && `, ${doing}`);
  face.querySelector(".more").textContent = face.title.slice(name.length); // for who hears it
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

// The same colour for the same name, for everybody.
export function hue(name) {
  let hash = 2166136261; // FNV-1a
  for (const letter of name) hash = Math.imul(hash ^ letter.codePointAt(0), 16777619);
  return (hash >>> 0) % 360;
}

// ---- The person at this page ------------------------------------------------------------------------------------

const AGAIN_MS = 2_000; // so often the server is told of typing; after 4 s without a word it is a pause
const AWAY_MS = 10_000; // who looks elsewhere for longer is away

// `tell` is called whenever the others should hear what `now` returns.
export class Doing {
  #tell;
  #typedAt = 0; // when the others last heard that we type; 0 if they heard that we do not
  #away = false;
  #timer;

  constructor(tell) {
    this.#tell = tell;
    addEventListener("blur", () => this.#look());
    addEventListener("focus", () => this.#look());
    document.addEventListener("visibilitychange", () => this.#look());
    this.#look();
  }

  now() {
    return { typing: Date.now() - this.#typedAt < AGAIN_MS, away: this.#away };
  }

  // The text has changed, to one that is not empty or to nothing.
  types(something) {
    if (something ? this.now().typing : this.#typedAt === 0) return;
    this.#typedAt = something ? Date.now() : 0;
    this.#tell();
  }

  // The text was sent, by which the server knows that the typing is over.
  sends() {
    this.#typedAt = 0;
  }

  #look() {
    clearTimeout(this.#timer);
    const looks = !document.hidden && document.hasFocus();
    if (!looks) this.#timer = setTimeout(() => this.#is(true), AWAY_MS);
    else if (this.#away) this.#is(false);
  }

  #is(away) {
    this.#away = away;
    this.#tell();
  }
}

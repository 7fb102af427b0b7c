// A textarea, behind which lies a copy of its text with the cursors of others, and a line that names them.

import { make } from "./make.js";

export class Sheet {
  area = make("textarea", { placeholder: "Write something…", spellcheck: false, testid: "letter" });
  #behind = make("div", { className: "behind", ariaHidden: "true" });
  #here = make("p", { className: "count", testid: "here" });

  // `name` is that of who writes; `onselect` is called whenever the cursor may have moved.
  constructor(body, name, onselect) {
    this.area.setAttribute("aria-label", `The letter, as ${name} writes it`);
    for (const event of ["keyup", "pointerup", "focus", "input"]) this.area.addEventListener(event, onselect);
    body.append(make("div", { className: "sheet" }, this.#behind, this.area), this.#here);
    this.show([]);
  }

  // `others` are {name, at}: a user, and where their cursor is in the text.
  show(others) {
    const text = this.area.value;
    const parts = [];
    let last = 0;
    for (const { name, at } of others.toSorted((a, b) => a.at - b.at)) {
      const caret = make("span", { className: "caret", testid: "caret" });
      caret.dataset.name = capitalized(name);
      parts.push(text.slice(last, at), caret);
      last = at;
    }
    this.#behind.replaceChildren(...parts, `${text.slice(last)}\n`);
    const names = [...new Set(others.map(({ name }) => capitalized(name)))].join(", ");
    const here = names === "" ? "Nobody else is here" : `Also here: ${names}`;
    if (this.#here.textContent !== here) this.#here.textContent = here;
  }
}

const capitalized = (name) => name.charAt(0).toUpperCase() + name.slice(1);

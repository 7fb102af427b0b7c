// A textarea for a Yjs text. Behind it lies a copy of the text with the cursors of others.

import * as Y from "yjs";
import { difference } from "../../page/difference.js";

export interface Other {
  name: string;
  at: number;
}

export class Editor {
  onselect = () => {};
  readonly #text: Y.Text;
  readonly #area = document.createElement("textarea");
  readonly #behind = document.createElement("div");
  readonly #here = document.createElement("p");
  readonly #undo: Y.UndoManager;

  constructor(body: HTMLElement, name: string, text: Y.Text) {
    this.#text = text;
    this.#undo = new Y.UndoManager(text, { trackedOrigins: new Set([this]) });
    Object.assign(this.#area, { placeholder: "Write something…", spellcheck: false, value: text.toString() });
    this.#area.setAttribute("aria-label", `The letter, as ${name} writes it`);
    this.#area.dataset.testid = "letter";
    this.#behind.className = "behind";
    this.#behind.setAttribute("aria-hidden", "true");
    this.#here.className = "count";
    this.#here.dataset.testid = "here";
    const sheet = document.createElement("div");
    sheet.className = "sheet";
    sheet.append(this.#behind, this.#area);
    body.append(sheet, this.#here);

    this.#area.addEventListener("input", () => this.#written());
    this.#area.addEventListener("keydown", (event) => this.#keyPressed(event));
    for (const event of ["keyup", "pointerup", "focus", "input"]) this.#area.addEventListener(event, () => this.onselect());
    text.observe(({ delta, transaction }) => {
      if (transaction.origin !== this) this.#changed(delta);
    });
    this.showOthers([]);
  }

  get cursor() {
    return this.#area.selectionEnd;
  }

  showOthers(others: Other[]) {
    const text = this.#text.toString();
    const parts: (string | Node)[] = [];
    let last = 0;
    for (const { name, at } of others.toSorted((a, b) => a.at - b.at)) {
      const caret = document.createElement("span");
      caret.className = "caret";
      caret.dataset.name = name;
      caret.dataset.testid = "caret";
      parts.push(text.slice(last, at), caret);
      last = at;
    }
    this.#behind.replaceChildren(...parts, `${text.slice(last)}\n`);
    const names = [...new Set(others.map(({ name }) => name))].join(", ");
    const here = names === "" ? "Nobody else is here" : `Also here: ${names}`;
    if (this.#here.textContent !== here) this.#here.textContent = here;
  }

  /** Makes one change of the text of what is different in the area. */
  #written() {
    const { at, delete: deleted, insert } = difference(this.#text.toString(), this.#area.value);
    this.#text.doc!.transact(() => {
      this.#text.delete(at, deleted);
      this.#text.insert(at, insert);
    }, this);
  }

  /** Shows a change of others, or one that was taken back. The selection stays where it is in the text. */
  #changed(delta: { retain?: number; insert?: unknown; delete?: number }[]) {
    const { selectionStart, selectionEnd } = this.#area;
    const moved = [selectionStart, selectionEnd].map((position) => {
      let at = 0;
      for (const { retain = 0, insert, delete: deleted = 0 } of delta) {
        const inserted = typeof insert === "string" ? insert.length : 0;
        at += retain;
        if (at > position || (at === position && deleted === 0)) break;
        if (inserted > 0) position += inserted;
        position -= Math.min(deleted, position - at);
        at += inserted;
      }
      return position;
    });
    this.#area.value = this.#text.toString();
    this.#area.setSelectionRange(moved[0], moved[1]);
  }

  // The browser's own undo would take back the changes of others.
  #keyPressed(event: KeyboardEvent) {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
    event.preventDefault();
    if (event.shiftKey) this.#undo.redo();
    else this.#undo.undo();
  }
}

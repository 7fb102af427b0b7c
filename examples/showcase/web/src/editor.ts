// A textarea for a Yjs text.

import * as Y from "yjs";
import { difference } from "../../page/difference.js";
import { Sheet } from "../../page/sheet.js";

export interface Other {
  name: string;
  at: number;
}

export class Editor {
  readonly #text: Y.Text;
  readonly #sheet: Sheet;
  readonly #area: HTMLTextAreaElement;
  readonly #undo: Y.UndoManager;

  constructor(body: HTMLElement, name: string, text: Y.Text, onselect: () => void) {
    this.#text = text;
    this.#undo = new Y.UndoManager(text, { trackedOrigins: new Set([this]) });
    this.#sheet = new Sheet(body, name, onselect);
    this.#area = this.#sheet.area as HTMLTextAreaElement;
    this.#area.value = text.toString();
    this.#area.addEventListener("input", () => this.#written());
    this.#area.addEventListener("keydown", (event) => this.#keyPressed(event));
    text.observe(({ delta, transaction }) => {
      if (transaction.origin !== this) this.#changed(delta);
    });
  }

  get cursor() {
    return this.#area.selectionEnd;
  }

  showOthers(others: Other[]) {
    this.#sheet.show(others);
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

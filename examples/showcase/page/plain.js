// The shared document in a textarea, without Yjs. The page sends what is different from the text that it got last, one
// edit at a time, and gets the text with that and with what others have written.
//
//     >  edit    {number, at, delete, insert}; an empty one asks for the text
//     <  update  others have written: there is another text
//     >  cursor  {client, at}: where this page's cursor is; the others' come by presence

import { randomId } from "./client/socket.js";
import { Device } from "./device.js";
import { applied, difference, moved, rebased } from "./difference.js";
import { Presence } from "./presence.js";
import { Sheet } from "./sheet.js";

const CURSOR_MS = 100;

export class PlainLetter {
  #device;
  #channel;
  #sheet;
  #area;
  #presence;
  #client = randomId();
  #cursorTimer;
  #text = ""; // as the server had it last
  #number = 0; // of the newest edit
  #isOutdated = true;
  #sent = null; // the edit without a reply, and what #text is with it
  #isSending = false;

  constructor(part, name, user) {
    this.#device = new Device(part, { name, user });
    this.#sheet = new Sheet(this.#device.body, name, () => this.#selected());
    this.#area = this.#sheet.area;
    this.#area.addEventListener("input", () => {
      this.#showOthers();
      this.#send();
    });
    this.#channel = this.#device.channel("doc:letter", (reply) => this.#joined(reply), { plain: true });
    this.#channel.on("update", () => {
      this.#isOutdated = true;
      this.#send();
    });
    this.#presence = new Presence(this.#channel);
    this.#presence.onSync(() => this.#showOthers());
    this.#channel.join();
  }

  close() {
    clearTimeout(this.#cursorTimer);
    this.#device.close();
  }

  // A new channel has no text yet. Of an edit whose reply it cannot give, nobody knows whether it was made: if it was,
  // it is made twice. Within a session, each is made once.
  #joined({ resumed }) {
    if (!resumed) {
      this.#number = 0;
      this.#sent = null;
      this.#isOutdated = true;
    }
    this.#selected();
    this.#send();
  }

  // A cursor is an offset in this page's text. Where others have a slightly older text, it is right with their next one.
  #selected() {
    this.#cursorTimer ??= setTimeout(() => {
      this.#cursorTimer = undefined;
      this.#channel.send("cursor", { client: this.#client, at: this.#area.selectionEnd });
    }, CURSOR_MS);
  }

  #showOthers() {
    const cursors = this.#presence.list((name, { metas }) => metas.map(({ cursor }) => ({ name, ...cursor })));
    this.#sheet.show(cursors.flat().filter(({ client, at }) => at !== undefined && client !== this.#client));
  }

  async #send() {
    if (this.#isSending || this.#channel.state !== "joined") return;
    this.#sent ??= this.#next();
    if (this.#sent === null) return;
    const sent = this.#sent;
    this.#isSending = true;
    let text;
    try {
      ({ text } = await this.#channel.push("edit", sent.edit));
    } catch (error) {
      if (error.kind === "refused") {
        this.#device.note(`Not saved: ${error.message}`);
        text = error.response.text;
      }
    } finally {
      this.#isSending = false;
    }
    if (this.#channel.state !== "joined") return; // it is sent again after the next join
    if (this.#sent === sent && text !== undefined) this.#received(text);
    this.#send();
  }

  #next() {
    // The first edit of a channel is an empty one and brings the text, in which the later ones are made.
    const isFirst = this.#number === 0;
    const text = isFirst ? this.#text : this.#area.value;
    const edit = isFirst ? { at: 0, delete: 0, insert: "" } : difference(this.#text, text);
    if (!this.#isOutdated && edit.delete === 0 && edit.insert === "") return null;
    this.#isOutdated = false;
    this.#number += 1;
    return { edit: { number: this.#number, ...edit }, text };
  }

  // What was written meanwhile is kept, and is the next edit.
  #received(text) {
    const { value, selectionStart, selectionEnd } = this.#area;
    const [own, others] = [difference(this.#sent.text, value), difference(this.#sent.text, text)];
    this.#text = text;
    this.#sent = null;
    const shown = applied(text, rebased(own, others));
    if (shown === value) return;
    const change = difference(value, shown);
    this.#area.value = shown;
    this.#area.setSelectionRange(moved(selectionStart, change), moved(selectionEnd, change));
    this.#showOthers();
    this.#selected();
  }
}

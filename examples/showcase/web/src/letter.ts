// A text that several people write at the same time: a Yjs document over a channel.
//
//     <  state   everything that the server has, behind each join
//     >  update  what it does not have: behind that, everything written while the page was away
//     <> update  each change
//     >  cursor  where this page's cursor is; the others' come by presence

import { Presence, type Channel } from "phoenix";
import * as Y from "yjs";
import { Connection } from "./connection";
import { Editor } from "./editor";

const REMOTE = "remote";
const CURSOR_MS = 100;

export interface Cursor {
  client: number;
  anchor: unknown;
}

export class Letter {
  readonly connection: Connection;
  onrefused = (_reason: string) => {};
  readonly #doc = new Y.Doc();
  readonly #text = this.#doc.getText("text");
  readonly #channel: Channel;
  readonly #presence: Presence;
  #editor: Editor | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(user: string) {
    this.connection = new Connection("/socket", { user });
    this.#channel = this.connection.socket.channel("doc:letter");
    this.#presence = new Presence(this.#channel);
    this.#channel.on("state", (state: ArrayBuffer) => this.#synchronize(new Uint8Array(state)));
    this.#channel.on("update", (update: ArrayBuffer) => Y.applyUpdate(this.#doc, new Uint8Array(update), REMOTE));
    this.#doc.on("update", (update: Uint8Array, origin: unknown) => {
      // What is written while the channel is away is sent behind its next `state`.
      if (origin !== REMOTE && this.#channel.state === "joined") this.#push(update);
    });
    this.#presence.onSync(() => this.#showOthers());
    this.#channel.onError(() => this.connection.onchange());
  }

  get isJoining() {
    return this.#channel.state !== "joined";
  }

  show(body: HTMLElement, name: string) {
    this.#editor = new Editor(body, name, this.#text, () => {
      this.#timer ??= setTimeout(() => this.#sendCursor(), CURSOR_MS);
    });
    this.#text.observe(() => this.#showOthers());
    this.#channel.join().receive("ok", () => {
      this.connection.onchange();
      this.#sendCursor();
    });
  }

  close() {
    clearTimeout(this.#timer);
    this.connection.close();
    this.#doc.destroy();
  }

  #synchronize(state: Uint8Array) {
    Y.applyUpdate(this.#doc, state, REMOTE);
    const missing = Y.diffUpdate(Y.encodeStateAsUpdate(this.#doc), Y.encodeStateVectorFromUpdate(state));
    if (missing.length > 2) this.#push(missing);
  }

  #push(update: Uint8Array) {
    const { buffer, byteOffset, byteLength } = update;
    this.#channel
      .push("update", buffer.slice(byteOffset, byteOffset + byteLength) as object)
      .receive("error", ({ reason }: { reason: string }) => this.onrefused(reason));
  }

  #sendCursor() {
    this.#timer = undefined;
    if (this.isJoining || !this.#editor) return;
    const position = Y.createRelativePositionFromTypeIndex(this.#text, this.#editor.cursor);
    this.#channel.push("cursor", { client: this.#doc.clientID, anchor: Y.relativePositionToJSON(position) });
  }

  #showOthers() {
    const others = this.#presence.list((name: string, { metas }: { metas: { cursor: Cursor | null }[] }) =>
      metas
        .filter(({ cursor }) => cursor?.anchor && cursor.client !== this.#doc.clientID)
        .map(({ cursor }) => {
          const position = Y.createRelativePositionFromJSON(cursor!.anchor);
          const at = Y.createAbsolutePositionFromRelativePosition(position, this.#doc)?.index;
          return { name, at: at ?? this.#text.length };
        }),
    );
    this.#editor?.showOthers(others.flat());
  }
}

// A device: a connection of its own, what there is to say about it, and the body that a part of the page fills.

import { Socket } from "./client/socket.js";
import { make } from "./make.js";
import { network } from "./network.js";

const NOTE_MS = 6_000;

export class Device {
  #wire;
  #channels = [];
  #note;
  #timer;

  // `socket` is one of another client, which knows whether it is joining.
  constructor(part, { name, user, delay = 0, socket = new Socket("/socket", { user }), isJoining }) {
    this.name = name;
    this.socket = socket;
    this.socket.slow(delay);
    isJoining ??= () => this.#channels.some((channel) => channel.state !== "joined");
    this.#wire = network(this.socket, { isCompact: true, isJoining });
    this.socket.onchange = () => this.#wire.show();

    this.element = make("article", { className: "device" });
    this.element.setAttribute("aria-label", name);
    this.element.dataset.testid = "device";
    const head = make("header", {}, make("h3", { textContent: name }), this.#wire.element);
    this.body = make("div", { className: "body" });
    this.#note = make("p", { className: "note" });
    this.#note.setAttribute("role", "status");
    this.#note.dataset.testid = "note";
    this.element.append(head, this.body, this.#note);
    part.querySelector(".devices").append(this.element);
    this.socket.connect();
  }

  // Creates a channel, which joins with `payload`. `isFirst` is false in `onjoin` if the device was there before.
  channel(topic, onjoin, payload = {}) {
    let isFirst = true;
    const channel = this.socket.channel(topic, () => payload);
    channel.onchange = () => this.#wire.show();
    channel.onjoin = (reply) => {
      onjoin(reply, isFirst);
      isFirst = false;
    };
    this.#channels.push(channel);
    return channel;
  }

  // Says something for a while. Something newer replaces it.
  note(text) {
    clearTimeout(this.#timer);
    this.#note.textContent = text;
    this.#timer = setTimeout(() => (this.#note.textContent = ""), NOTE_MS);
  }

  close() {
    clearTimeout(this.#timer);
    this.#wire.close();
    this.socket.close();
  }
}

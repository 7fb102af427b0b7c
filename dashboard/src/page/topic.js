// One topic: who is present, and what is broadcast while it is looked at.

import { brief, bytes, clock, count, el, fill, say } from "./dom.js";

const REFRESH_MS = 2_500;
const KEPT = 100;

export class Topic {
  #timer = null;
  #traffic = null;
  #number = 0;

  constructor(console, topic) {
    this.console = console;
    this.topic = topic;
    this.title = topic;
    this.facts = el("p", { class: "found", data: { testid: "facts" } });
    this.keys = el("ul", { class: "keys", data: { testid: "keys" } });
    this.present = el("p", { class: "empty" }, "Nobody is present.");
    this.log = el("ol", { class: "log", data: { testid: "traffic" } });
    this.waiting = el("p", { class: "empty" }, "Waiting for a broadcast…");
    this.pause = el("button", { class: "quiet", "aria-pressed": "false", onclick: () => this.#pause() }, "Pause");
    this.skipped = el("span");
    const hidden = console.payloads ? "" : " Their content is not shown to you.";
    this.node = el(
      "div",
      { class: "wide" },
      el("p", { class: "path" }, el("a", { href: "#/topics" }, "Topics")),
      el("h1", { class: "topic" }, topic),
      this.facts,
      el(
        "div",
        { class: "cards" },
        el(
          "section",
          { class: "card" },
          el("div", { class: "head" }, el("h2", {}, "Broadcasts"), this.pause),
          el("p", { class: "note" }, `The newest first, while you look.${hidden} `, this.skipped),
          this.waiting,
          this.log,
        ),
        el("section", { class: "card" }, el("h2", {}, "Present"), this.present, this.keys),
      ),
    );
  }

  show() {
    this.refresh();
    this.#timer = setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
    this.#listen();
  }

  hide() {
    clearInterval(this.#timer);
    this.#traffic?.leave();
    this.#traffic = null;
  }

  samples() {}

  status() {}

  #listen() {
    this.#traffic = this.console.socket.channel("traffic", () => ({ topic: this.topic }));
    this.#traffic.on("messages", (batch) => this.#add(batch));
    this.#traffic.join();
  }

  #pause() {
    const pauses = this.#traffic !== null;
    this.pause.setAttribute("aria-pressed", String(pauses));
    say(this.pause, pauses ? "Go on" : "Pause");
    if (pauses) {
      this.#traffic.leave();
      this.#traffic = null;
    } else {
      this.#listen();
    }
  }

  #add({ messages, skipped }) {
    this.waiting.hidden = true;
    say(this.skipped, skipped > 0 ? `${count(skipped)} of this moment are not shown.` : "");
    for (const { t, event, size, payload } of messages) {
      this.#number += 1;
      this.log.prepend(
        el(
          "li",
          { data: { key: this.#number } },
          el("span", { class: "when" }, el("time", {}, clock(t)), el("b", {}, event), el("span", {}, bytes(size))),
          payload === undefined ? null : el("code", {}, payload),
        ),
      );
    }
    while (this.log.children.length > KEPT) this.log.lastChild.remove();
  }

  async refresh() {
    const details = await this.console.ask("topic", { topic: this.topic });
    if (!details) return;
    const { subscribers, rate, present, keys } = details;
    // The dashboard itself listens, too, while it shows the broadcasts.
    const others = Math.max(0, subscribers - (this.#traffic?.state === "joined" ? 1 : 0));
    const noun = others === 1 ? "subscriber" : "subscribers";
    say(this.facts, `${count(others)} ${noun} · ${count(present)} present · ${brief(rate)} broadcasts/s`);
    this.present.hidden = present > 0;
    fill(this.keys, keys, ([key]) => key,
      ([key]) => el("li", {}, el("b", {}, key), el("span", { class: "note" }), el("code", {})),
      (node, [, metas, shown]) => {
        say(node.children[1], metas > 1 ? `${metas} times` : "");
        say(node.children[2], shown.join("\n"));
        node.children[2].hidden = shown.length === 0;
      });
    if (present > keys.length) {
      this.keys.append(el("li", { class: "note", data: { key: "" } }, `and ${count(present - keys.length)} more`));
    }
  }
}

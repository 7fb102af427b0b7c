// The overview: figures, plots, and tables of what there is little of.

import { Plot } from "./plot.js";
import { brief, bytes, count, duration, el, fill, millis, say } from "./dom.js";

const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
const perSecond = (number) => `${brief(number)}/s`;

const TRANSPORTS = ["WebSocket", "Long poll", "Other"];

// One figure with a name, and a line that explains it.
class Tile {
  constructor(name, { href = null, test = null } = {}) {
    this.value = el("span", { class: "value", data: test ? { testid: test } : {} }, "–");
    this.note = el("span", { class: "note" });
    const parts = [el("span", { class: "name" }, name), this.value, this.note];
    this.node = href ? el("a", { class: "tile", href }, ...parts) : el("div", { class: "tile" }, ...parts);
  }

  show(value, note = "") {
    say(this.value, value);
    say(this.note, note);
  }
}

export class Overview {
  title = "Overview";

  constructor(console) {
    this.console = console;
    this.tiles = {
      sessions: new Tile("Sessions", { href: "#/sessions", test: "sessions" }),
      topics: new Tile("Topics", { href: "#/topics", test: "topics" }),
      received: new Tile("From clients", { test: "received" }),
      sent: new Tile("To clients"),
      broadcasts: new Tile("Broadcasts"),
      queued: new Tile("Waiting for clients"),
    };
    this.meter = el("meter", { min: 0, max: 1, high: 0.9, optimum: 0, value: 0, "aria-label": "Memory" });
    this.memory = new Tile("Memory");
    this.memory.node.append(this.meter);
    this.plots = [
      new Plot("Messages per second", [
        { name: "from clients", of: ({ r }) => sum(r) },
        { name: "to clients", of: ({ s }) => sum(s) },
      ], { show: brief, least: 10 }),
      new Plot("Round trip to clients", [
        { name: "median", of: ({ l }) => l && l[0] },
        { name: "95 %", of: ({ l }) => l && l[1] },
      ], { show: millis, least: 1, hint: "Measured by the Pings of resumable sessions" }),
      new Plot("Sessions", [
        { name: "connected", of: ({ c }) => sum(c) },
        { name: "away", of: ({ d }) => sum(d) },
      ], { show: brief, least: 10 }),
      new Plot("Waiting for clients", [{ name: "bytes", of: ({ q }) => q }], { show: bytes, least: 1024, base: 1024 }),
    ];
    this.share = el("div", { class: "share", role: "img" });
    this.shares = el("ul", { class: "shares" });
    this.channels = table("Channels", ["Pattern", "Running"], "The patterns that this endpoint serves");
    this.nodes = table("Nodes", ["Node", "Sessions", "State"], "This server is alone");
    this.counters = table("Events since the program began", ["Event", "Count"], "Nothing has happened yet");
    const tiles = el("section", { class: "tiles", "aria-label": "Figures" }, ...Object.values(this.tiles).map(({ node }) => node), this.memory.node);
    this.node = el(
      "div",
      { class: "overview" },
      el("h1", { class: "hidden" }, this.title),
      tiles,
      el("section", { class: "plots", "aria-label": "The last minutes" }, ...this.plots.map(({ node }) => node)),
      el(
        "div",
        { class: "cards" },
        el("div", {}, el("section", { class: "card" }, el("h2", {}, "Transports"), this.share, this.shares), this.nodes.node),
        el("div", {}, this.channels.node, this.counters.node),
      ),
    );
  }

  show() {
    this.samples();
    this.status();
  }

  hide() {}

  samples() {
    const { samples, kept } = this.console;
    const last = samples.at(-1);
    this.plots.forEach((plot) => plot.update(samples, kept * 1000));
    if (!last) return;
    const [connected, away] = [sum(last.c), sum(last.d)];
    this.tiles.sessions.show(count(connected + away), away > 0 ? `${count(away)} away` : "all connected");
    this.tiles.received.show(perSecond(sum(last.r)));
    this.tiles.sent.show(perSecond(sum(last.s)));
    this.tiles.broadcasts.show(perSecond(last.b));
    this.tiles.queued.show(bytes(last.q));
    const limit = this.console.status?.memory[1] ?? 0;
    if (limit) {
      this.memory.show(bytes(last.m), `of ${bytes(limit)}`);
      this.meter.value = Math.min(last.m / limit, 1);
    }
    this.#showShare(last);
  }

  #showShare({ c, d }) {
    const sessions = TRANSPORTS.map((name, i) => ({ name, i, number: c[i] + d[i] }));
    const all = sum(sessions.map(({ number }) => number));
    const present = sessions.filter(({ number, i }) => number > 0 || i < 2);
    const percent = (number) => `${all ? Math.round((100 * number) / all) : 0} %`;
    fill(this.share, present.filter(({ number }) => number > 0), ({ name }) => name,
      ({ i }) => el("span", { class: `s${i + 1}` }),
      (node, { number }) => (node.style.flexGrow = number));
    this.share.setAttribute("aria-label", present.map(({ name, number }) => `${name} ${percent(number)}`).join(", "));
    fill(this.shares, present, ({ name }) => name,
      ({ name, i }) => el("li", {}, el("span", { class: `key s${i + 1}` }, name), el("span", {}), el("b", {})),
      (node, { number }) => {
        say(node.children[1], count(number));
        say(node.children[2], percent(number));
      });
  }

  status() {
    const { status } = this.console;
    if (!status) return;
    const [topics, subscribers] = status.topics;
    this.tiles.topics.show(count(topics), `${brief(subscribers)} subscriptions`);
    this.channels.show(status.channels, ([pattern]) => pattern, ([pattern, running]) => [pattern, count(running)]);
    this.nodes.show(status.nodes, ({ id }) => id, ({ id, sessions, uptime, state, is_self }) =>
      [{ text: id, note: `${is_self ? "this node, " : ""}up for ${duration(uptime)}` }, count(sessions), state]);
    this.counters.show(status.counters, ([name]) => name, ([name, meaning, total]) => [{ text: meaning, note: name }, count(total)]);
  }
}

// A small table, or a sentence in its place.
function table(title, columns, none) {
  const head = el("tr", {}, ...columns.map((name, i) => el("th", { scope: "col", class: i ? "number" : "" }, name)));
  const body = el("tbody");
  const grid = el("table", { "aria-label": title }, el("thead", {}, head), body);
  const empty = el("p", { class: "empty" }, none);
  const cell = (value, i) => {
    const parts = typeof value === "string" ? [] : [el("span", {}), el("small", {})];
    return el(i ? "td" : "th", { scope: i ? null : "row", class: i ? "number" : "" }, ...parts);
  };
  return {
    node: el("section", { class: "card" }, el("h2", {}, title), empty, grid),
    show(rows, keyOf, cells) {
      empty.hidden = rows.length > 0;
      grid.hidden = rows.length === 0;
      fill(body, rows, keyOf, (row) => el("tr", {}, ...cells(row).map(cell)), (node, row) => {
        cells(row).forEach((value, i) => {
          const cell = node.children[i];
          if (typeof value === "string") return say(cell, value);
          say(cell.children[0], value.text);
          say(cell.children[1], value.note);
        });
      });
    },
  };
}

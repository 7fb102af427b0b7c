// The lists of sessions and topics: searched, ordered and cut by the server, and read again while they are looked at.

import { brief, bytes, count, duration, el, fill, say, transportName } from "./dom.js";

const REFRESH_MS = 2_500;
const TYPING_MS = 250;

class List {
  #timer = null;
  #asked = 0;
  #from = 0;

  // `columns` are {name, cell(row) -> text or node, class}; `orders` are [value, label].
  constructor(console, { title, event, placeholder, orders, columns, keyOf }) {
    Object.assign(this, { console, title, event, columns, keyOf });
    this.search = el("input", {
      type: "search", placeholder, "aria-label": placeholder, spellcheck: false, autocomplete: "off", data: { testid: "search" },
    });
    this.order = el("select", { "aria-label": "Order", data: { testid: "order" } },
      ...orders.map(([value, label]) => el("option", { value }, label)));
    this.found = el("p", { class: "found", role: "status", data: { testid: "found" } });
    this.body = el("tbody");
    const head = el("tr", {}, ...columns.map((column) => el("th", { scope: "col", class: column.class }, column.name)));
    this.table = el("table", { class: "list", "aria-label": title }, el("thead", {}, head), this.body);
    this.first = el("button", { class: "quiet", onclick: () => this.#go(0) }, "First page");
    this.more = el("button", { class: "quiet", data: { testid: "more" }, onclick: () => this.#go(this.next) }, "Next page");
    this.node = el(
      "div",
      { class: "wide" },
      el("div", { class: "tools" }, el("h1", {}, title), this.search, this.order),
      this.found,
      this.table,
      el("p", { class: "pages" }, this.first, this.more),
    );
    let typing;
    this.search.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#go(0), TYPING_MS);
    });
    this.order.addEventListener("change", () => this.#go(0));
  }

  show() {
    this.refresh();
    this.#timer = setInterval(() => document.hidden || this.refresh(), REFRESH_MS);
  }

  hide() {
    clearInterval(this.#timer);
  }

  samples() {}

  status() {}

  #go(from) {
    this.#from = from;
    this.refresh();
  }

  async refresh() {
    const asked = (this.#asked += 1);
    const wanted = { search: this.search.value, order: this.order.value, from: this.#from };
    const list = await this.console.ask(this.event, wanted);
    if (!list || asked !== this.#asked) return; // lost, or asked again meanwhile
    const { rows, found, total, next } = list;
    this.next = next ?? 0;
    this.first.hidden = this.#from === 0;
    this.more.hidden = next === null;
    say(this.found, this.describe(rows.length, found, total, wanted));
    this.table.hidden = rows.length === 0;
    fill(this.body, rows, this.keyOf, (row) => this.#create(row), (node, row) => {
      this.columns.forEach(({ cell }, i) => {
        const value = cell(row);
        if (typeof value === "string") say(node.children[i], value);
      });
      this.update?.(node, row);
    });
  }

  describe(shown, found, total, { search, order }) {
    const all = `${count(total)} ${total === 1 ? this.noun : `${this.noun}s`}`;
    if (total === 0) return `There are no ${this.noun}s.`;
    if (order === "none") return shown === 0 ? `None here, of ${all}.` : `${count(shown)} of ${all}`;
    const what = search.trim() ? `${count(found)} found in ${all}` : all;
    return found > shown ? `The first ${shown} of ${what}` : what;
  }

  #create(row) {
    return el("tr", {}, ...this.columns.map(({ name, cell, class: kind }, i) => {
      const value = cell(row);
      return el(i === 0 ? "th" : "td", { scope: i === 0 ? "row" : null, class: kind, data: { label: name } }, typeof value === "string" ? "" : value);
    }));
  }
}

export class Sessions extends List {
  noun = "session";

  constructor(console) {
    const disconnect = ({ id }) => {
      if (!id || !console.disconnects) return "";
      return el("button", { class: "quiet", "aria-label": `Disconnect ${id}`, onclick: () => console.disconnect(id) }, "Disconnect");
    };
    super(console, {
      title: "Sessions",
      event: "sessions",
      placeholder: "Search socket ids",
      orders: [["queued", "Most waiting"], ["channels", "Most channels"], ["newest", "Newest"], ["oldest", "Oldest"], ["none", "Page by page"]],
      keyOf: ({ place, id }) => `${place} ${id}`,
      columns: [
        { name: "Socket id", cell: ({ id }) => id ?? "without an id", class: "name" },
        { name: "State", cell: ({ state }) => state, class: "state" },
        { name: "Transport", cell: ({ transport }) => transportName[transport] ?? transport },
        { name: "Channels", cell: ({ channels }) => count(channels), class: "number" },
        { name: "Waiting", cell: ({ queued }) => bytes(queued), class: "number" },
        { name: "Age", cell: ({ age }) => duration(age), class: "number" },
        { name: "", cell: disconnect, class: "action" },
      ],
    });
  }

  update(node, { id, state }) {
    node.children[0].classList.toggle("faint", id === null);
    node.children[1].dataset.state = state;
  }
}

export class Topics extends List {
  noun = "topic";

  constructor(console) {
    const link = ({ topic }) => el("a", { href: `#/topics/${encodeURIComponent(topic)}` }, topic);
    super(console, {
      title: "Topics",
      event: "topics",
      placeholder: "Search topics",
      orders: [["subscribers", "Most subscribers"], ["rate", "Most broadcasts"], ["name", "By name"]],
      keyOf: ({ topic }) => topic,
      columns: [
        { name: "Topic", cell: link, class: "name" },
        { name: "Subscribers", cell: ({ subscribers }) => count(subscribers), class: "number" },
        { name: "Present", cell: ({ present }) => (present ? count(present) : "–"), class: "number" },
        { name: "Broadcasts", cell: ({ rate }) => (rate ? `${brief(rate)}/s` : "–"), class: "number" },
      ],
    });
  }
}

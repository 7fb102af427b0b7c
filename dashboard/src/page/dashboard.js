// The page: one connection, and the view that the fragment of the URL names.

// The files beside this one, wherever the dashboard is mounted, and whether the URL of the page ends in a slash or not.
const path = location.pathname.replace(/\/$/, "");
const load = (file) => import(`${path}/${file}`);
const [{ Socket }, { Overview }, { Sessions, Topics }, { Topic }, { el, say }] = await Promise.all(
  ["client/socket.js", "overview.js", "lists.js", "topic.js", "dom.js"].map(load),
);

const byId = (id) => document.getElementById(id);
const main = byId("main");

// What all views share: the connection, the samples, and what the visitor may do.
class Console {
  samples = [];
  kept = 300;
  status = null;
  payloads = false;
  disconnects = false;

  constructor() {
    this.socket = new Socket(path, {});
    this.channel = this.socket.channel("dashboard", () => ({}));
    this.channel.on("sample", (sample) => this.#add(sample));
    this.channel.on("status", (status) => {
      this.status = status;
      view?.status();
    });
    this.channel.onjoin = ({ samples, kept, payloads, disconnects }) => {
      // The server forgets them when nobody looks, as for the moment of a reconnect.
      const first = samples[0]?.t ?? Infinity;
      samples = [...this.samples.filter(({ t }) => t < first), ...samples].slice(-kept);
      Object.assign(this, { samples, kept, payloads, disconnects });
      route(true);
    };
    this.channel.onchange = () => showState();
    this.socket.onchange = () => showState();
  }

  begin() {
    this.socket.connect();
    this.channel.join();
  }

  #add(sample) {
    this.samples = [...this.samples.slice(1 - this.kept), sample];
    view?.samples();
  }

  // Asks the server. Returns null if there is no answer.
  async ask(event, payload) {
    try {
      return await this.channel.push(event, payload);
    } catch (error) {
      if (error.kind === "refused") toast(`Refused: ${error.message}`);
      return null;
    }
  }

  async disconnect(id) {
    if (!(await confirmed(`Disconnect ${id}?`, "All connections and sessions of this socket id end, on every node. The client may connect again."))) return;
    const answer = await this.ask("disconnect", { id });
    if (answer) toast(`Disconnected ${id}`);
  }
}

function confirmed(title, text) {
  const dialog = byId("confirm");
  say(byId("confirm-title"), title);
  say(byId("confirm-text"), text);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

let toasting;
function toast(text) {
  say(byId("toast"), text);
  clearTimeout(toasting);
  toasting = setTimeout(() => say(byId("toast"), ""), 4_000);
}

function showState() {
  const { socket, channel } = console_;
  const isLive = socket.state === "open" && channel.state === "joined";
  document.body.dataset.state = isLive ? "live" : socket.state === "waiting" ? "lost" : "connecting";
  say(byId("status"), isLive ? "live" : socket.state === "waiting" ? "reconnecting" : "connecting");
}

// ---- The views ----

let view = null;
let shown = null;

function parse() {
  const [, name = "", ...rest] = location.hash.split("/");
  if (name === "topics" && rest.length > 0) {
    try {
      return { name: "topics", topic: decodeURIComponent(rest.join("/")) };
    } catch {
      return { name: "topics" };
    }
  }
  return { name: ["sessions", "topics"].includes(name) ? name : "overview" };
}

// Shows the view of the URL. `anew` makes it even if it is shown: what the visitor may do has changed.
function route(anew = false) {
  if (location.hash === "#main") return;
  const { name, topic } = parse();
  const wanted = `${name} ${topic ?? ""}`;
  if (shown === wanted && !anew) return;
  const isFirst = shown === null;
  const isSame = shown === wanted;
  if (isSame && view.permissions === permissions()) {
    view.hide();
    view.show();
    return;
  }
  view?.hide();
  view = topic !== undefined ? new Topic(console_, topic) : new VIEWS[name](console_);
  view.permissions = permissions();
  shown = wanted;
  main.replaceChildren(view.node);
  document.title = `${view.title} · tower-channels`;
  document.querySelectorAll("nav a").forEach((link) => {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  view.show();
  if (!isFirst && !isSame) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

const VIEWS = { overview: Overview, sessions: Sessions, topics: Topics };
const console_ = new Console();
const permissions = () => `${console_.payloads} ${console_.disconnects}`;

addEventListener("hashchange", () => route());
main.replaceChildren(el("p", { class: "empty" }, "Connecting…"));
showState();
console_.begin();

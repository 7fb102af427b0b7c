// The chat page: its state and how it is shown. The protocol is in client/socket.js.
//
// Every change in a room has a number (history.rs): messages, reactions, deletions. `seen` is the last one without a
// gap before it. Lost connections and changes of transport are left to the library, which resumes the session and
// replays what was missed. If the session is gone, for example after a server restart, the join carries `seen` and its
// reply brings what is missing. Either way, nothing is lost and nothing is shown twice.

import { Socket, randomId } from "./client/socket.js";
import { network } from "./network.js";
import { Doing, hue, initials, showPeople } from "./people.js";
import { Presence } from "./presence.js";

const $ = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);

// ---- Identity -------------------------------------------------------------------------------------------------

// Each tab is a separate user, since sessionStorage is per tab. A secret authenticates the user to the server; others
// only see the author number that the server assigned. The secret allows deleting the user's messages; a real
// application has accounts for this.
const secret = (sessionStorage.secret ??= randomId());
$("name").value = sessionStorage.name ?? "";
$("room").value = query.get("room") ?? sessionStorage.room ?? "lobby";

const transport = query.get("transport") ?? sessionStorage.transport;
const socket = new Socket("/socket", { secret }, transport === "longpoll" ? "longpoll" : "websocket");

// ---- One room ---------------------------------------------------------------------------------------------------

let room = null; // the current room

class Room {
  seen = null;
  newest = 0; // the highest number known; if it exceeds `seen`, there is a gap
  catchingUp = false;
  connection = 0; // the number of the connection of the last join
  replay = null; // { until, count }: the replay in progress after an absence
  floor = 0; // the id of the first message shown
  messages = new Map(); // id -> message
  rows = new Map(); // id -> <li>
  unsent = new Map(); // key -> { body, row }: written, but not yet confirmed
  me = null;
  emoji = [];

  constructor(name, roomName) {
    this.name = name;
    this.roomName = roomName;
    this.channel = socket.channel(`room:${roomName}`, () => ({ name, last_seen_id: this.seen }));
    this.channel.onjoin = (reply) => this.joined(reply);
    this.channel.onrefused = (error) => this.refused(error);
    this.channel.onchange = showStatus;
    this.channel
      .on("message", (message) => this.received(message))
      .on("missed", (missed) => this.caughtUp(missed))
      .on("recovered", () => this.recovered());
    this.presence = new Presence(this.channel);
    this.presence.onSync(() => showPeople(this.people()));
    this.channel.join();
  }

  // With `resumed`, the session and its channel are still there, and all messages up to `change` follow unasked. With
  // `recovered`, they do so although the server was killed, or another one: the session goes on all the same.
  joined({ resumed, recovered, author, emoji, ...missed }) {
    const isBack = this.seen !== null && this.connection !== socket.connections;
    this.connection = socket.connections;
    this.replay = null;
    if (resumed || recovered) {
      this.replay = { until: missed.change, count: 0 };
      this.noteReplay();
    } else {
      this.me = author;
      this.emoji = emoji;
      if (this.seen === null) showRoom();
      this.caughtUp(missed);
      if (isBack) note("new session, caught up from history");
    }
    this.channel.send("doing", doing.now());
    // Messages in flight when the connection was lost may or may not have arrived: see `say`.
    for (const key of this.unsent.keys()) this.deliver(key);
  }

  noteReplay() {
    if (this.replay === null || this.seen < this.replay.until) return;
    const { count } = this.replay;
    this.replay = null;
    const replayed = `${count} ${count === 1 ? "message" : "messages"} replayed`;
    note(`same session, ${count === 0 ? "nothing was missed" : replayed}`);
  }

  // All events have come. One is missing if the server was killed before it could broadcast it.
  recovered() {
    this.newest = Math.max(this.newest, this.replay?.until ?? 0);
    this.closeGap();
  }

  refused(error) {
    toast(error.message);
    if (room === this) leave();
  }

  // A new message, or a new state of an existing one.
  received(message) {
    this.newest = Math.max(this.newest, message.change);
    if (message.change <= this.replay?.until) this.replay.count += 1;
    if (message.change === this.seen + 1) {
      this.seen = message.change;
      this.show(message);
      this.updateView();
    }
    this.noteReplay();
    this.closeGap();
  }

  caughtUp({ reset, messages, change, older }) {
    if (reset) {
      stuck = true;
      this.newest = change;
      this.seen = change;
      this.messages.clear();
      this.rows.forEach((row) => row.remove());
      this.rows.clear();
      this.floor = older ? messages[0].id : 0;
    }
    this.seen = Math.max(this.seen, change);
    messages.forEach((message) => this.show(message));
    this.updateView();
    this.noteReplay();
    this.closeGap();
  }

  // Asks for missing changes, such as 6 when 7 follows 5.
  async closeGap() {
    if (this.newest <= this.seen || this.catchingUp || this.channel.state !== "joined") return;
    this.catchingUp = true;
    try {
      this.caughtUp(await this.channel.push("catch_up", { last_seen_id: this.seen }));
    } catch {
      // the connection was lost: the next join catches up
    } finally {
      this.catchingUp = false;
    }
  }

  // Shows the current state of a message. All messages pass through here, however and however often they arrive.
  show(message) {
    const { id, author, key } = message;
    if (author === this.me) this.sent(key);
    if (id < this.floor || this.messages.get(id)?.change >= message.change) return;
    if (message.body === null) {
      this.remove(id);
      return;
    }
    const row = messageRow(message, this);
    if (this.rows.has(id)) replaceRow(this.rows.get(id), row);
    else insertRow(row, id);
    this.rows.set(id, row);
    this.messages.set(id, message);
  }

  remove(id) {
    const row = this.rows.get(id);
    if (!row) return;
    if (row.contains(document.activeElement)) (row.nextElementSibling ?? row.previousElementSibling ?? $("body")).focus();
    row.remove();
    this.rows.delete(id);
    this.messages.delete(id);
  }

  // Updates the view after the log has changed.
  updateView() {
    groupRows();
    $("older").hidden = this.floor === 0;
    $("empty").hidden = $("log").childElementCount > 0;
    keepPlace();
  }

  // Shows a new message at once, and sends it until it is confirmed. Its key makes that safe: the server adds a message
  // with the same key only once.
  say(body) {
    const key = randomId();
    const row = messageRow({ author: this.me, name: this.name, body, at: Date.now(), reactions: [] }, this);
    row.classList.add("unsent");
    $("log").append(row);
    this.unsent.set(key, { body, row });
    stuck = true;
    this.updateView();
    this.deliver(key);
  }

  async deliver(key) {
    const written = this.unsent.get(key);
    const { body } = written;
    const attempt = (written.attempt = (written.attempt ?? 0) + 1);
    try {
      const { change } = await this.channel.push("new_msg", { body, key });
      // Its broadcast arrived before this reply or never will: it may be in a gap, or too old to be shown.
      if (change <= this.seen) this.sent(key);
      this.newest = Math.max(this.newest, change);
      this.closeGap();
    } catch (error) {
      if (error.kind === "refused") {
        this.sent(key);
        this.updateView();
        toast(error.message);
        if ($("body").value === "") setBody(body); // let the user correct it
      } else if (this.channel.state === "joined" && this.unsent.get(key)?.attempt === attempt) {
        this.deliver(key);
      } // otherwise the next join sends it, or it was already sent again
    }
  }

  sent(key) {
    this.unsent.get(key)?.row.remove();
    this.unsent.delete(key);
  }

  async loadOlder() {
    const page = await this.ask("older", { before: this.floor });
    if (!page) return;
    const below = $("scroll").scrollHeight - $("scroll").scrollTop;
    this.floor = page.older ? page.messages[0].id : 0;
    page.messages.forEach((message) => this.show(message));
    stuck = false;
    this.updateView();
    $("scroll").scrollTop = $("scroll").scrollHeight - below; // keep the scroll position
    if (this.floor === 0 && page.messages.length > 0) focusRow(this.rows.get(page.messages[0].id), false);
  }

  react(id, emoji) {
    const mine = this.messages.get(id).reactions.some((r) => r.emoji === emoji && r.who.some((p) => p.author === this.me));
    this.ask("react", { id, emoji, on: !mine });
  }

  delete(id) {
    this.ask("delete", { id });
  }

  async ask(event, payload) {
    try {
      return await this.channel.push(event, payload);
    } catch (error) {
      toast(error.kind === "refused" ? error.message : `Something went wrong: ${error.message}.`);
    }
  }

  // Lists every person once: typing if they type in any of their tabs, away if they are away in all of them.
  people() {
    return this.presence.list((name, { metas }) => ({
      name,
      tabs: metas.length,
      me: metas.some((meta) => meta.author === this.me),
      typing: metas.some((meta) => meta.typing),
      away: metas.every((meta) => meta.away),
    }));
  }

  leave() {
    this.channel.leave();
    showPeople([]);
  }
}

// ---- Joining and leaving --------------------------------------------------------------------------------------

$("join-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("name").value.trim();
  const roomName = $("room").value.trim();
  Object.assign(sessionStorage, { name, room: roomName });
  room?.leave();
  room = new Room(name, roomName);
});

$("leave").addEventListener("click", leave);

function leave() {
  room.leave();
  room = null;
  $("log").replaceChildren();
  showRoom();
  showStatus();
}

// Closing the tab ends the session. A page that the browser only suspends loses its connection and may return.
addEventListener("pagehide", ({ persisted }) => {
  if (!persisted) socket.end();
});

function showRoom() {
  $("welcome").hidden = room !== null;
  $("chat").hidden = $("leave").hidden = room === null;
  $("title").textContent = room ? `#${room.roomName}` : "Chat";
  document.title = room ? `#${room.roomName} · ${room.name}` : "Chat · tower-channels";
  if (room) $("body").placeholder = `Message #${room.roomName} as ${room.name}`;
  (room ? $("body") : $("name")).focus();
  showOtherTab();
}

// ---- The log --------------------------------------------------------------------------------------------------

// User input is only ever set as textContent, so it is never interpreted as HTML.
function messageRow(message, room) {
  const row = $("message-template").content.firstElementChild.cloneNode(true);
  const part = (name) => row.querySelector(`.${name}`);
  const time = new Date(message.at);
  if (message.id) row.dataset.id = message.id;
  Object.assign(row.dataset, { author: message.author, at: message.at, day: time.toDateString() });
  row.classList.toggle("mine", message.author === room.me);
  part("avatar").textContent = initials(message.name);
  row.style.setProperty("--hue", hue(message.name));
  part("who").textContent = message.name;
  part("bubble").textContent = message.body;
  const clock = row.querySelector("time");
  clock.dateTime = time.toISOString();
  clock.title = time.toLocaleString();
  clock.textContent = time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  if (!message.id) return row; // not sent yet, so there is nothing to react to

  for (const emoji of room.emoji) {
    const tool = button(emoji, `react-${emoji}`, `React with ${emoji}`, () => room.react(message.id, emoji));
    part("tools").append(tool);
  }
  if (message.author === room.me) {
    const tool = button("", "delete", "Delete this message", () => room.delete(message.id));
    tool.className = "bin";
    part("tools").append(tool);
  }
  for (const { emoji, who } of message.reactions) {
    const names = who.map((person) => (person.author === room.me ? "you" : person.name)).join(", ");
    const chip = button(emoji, `reaction-${emoji}`, `${emoji} by ${names}`, () => room.react(message.id, emoji));
    chip.setAttribute("aria-pressed", who.some((person) => person.author === room.me));
    chip.dataset.who = names;
    chip.append(Object.assign(document.createElement("span"), { textContent: who.length }));
    part("reactions").append(chip);
  }
  setReachable(row, false);
  return row;
}

function button(text, testid, label, onclick) {
  const element = document.createElement("button");
  Object.assign(element, { type: "button", textContent: text, onclick });
  element.dataset.testid = testid;
  element.setAttribute("aria-label", label);
  return element;
}

// Messages are sorted by id; unsent ones come last.
function insertRow(row, id) {
  let before = $("log").lastElementChild;
  while (before && (before.dataset.id === undefined || Number(before.dataset.id) > id)) {
    before = before.previousElementSibling;
  }
  if (before) before.after(row);
  else $("log").prepend(row);
}

// Replaces a row and keeps the focus on the same button.
function replaceRow(old, row) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  if (old.tabIndex === 0) setReachable(row, true);
  old.replaceWith(row);
  if (!focused) return;
  const same = focused.dataset.testid;
  const again = [row, ...row.querySelectorAll("button")].find((element) => element.dataset.testid === same);
  (again ?? row).focus({ preventScroll: true });
}

// The first of several messages by one author within five minutes shows author and time; the first of a day, the day.
function groupRows() {
  let above = null;
  for (const row of $("log").children) {
    const newDay = above?.dataset.day !== row.dataset.day;
    const later = Number(row.dataset.at) - Number(above?.dataset.at) > 5 * 60_000;
    row.classList.toggle("first", newDay || later || above.dataset.author !== row.dataset.author);
    if (newDay) row.dataset.newDay = dayName(new Date(Number(row.dataset.at)));
    else delete row.dataset.newDay;
    above = row;
  }
}

function dayName(day) {
  const today = new Date();
  if (day.toDateString() === today.toDateString()) return "Today";
  const sameYear = day.getFullYear() === today.getFullYear();
  return day.toLocaleDateString([], {
    weekday: "long", day: "numeric", month: "long", ...(sameYear ? {} : { year: "numeric" }),
  });
}

// A reader at the end of the log stays there when it grows or shrinks.
let stuck = true;

function keepPlace() {
  if (stuck) $("scroll").scrollTop = $("scroll").scrollHeight;
  $("newest").hidden = belowView() < 400;
}

const belowView = () => $("scroll").scrollHeight - $("scroll").scrollTop - $("scroll").clientHeight;

new ResizeObserver(keepPlace).observe($("scroll"));
$("scroll").addEventListener("scroll", () => {
  stuck = belowView() < 60;
  $("newest").hidden = belowView() < 400;
});
$("newest").addEventListener("click", () => {
  stuck = true;
  keepPlace();
  $("body").focus();
});
$("older").addEventListener("click", () => room.loadOlder());

// Keyboard: Tab stops once at the log, arrow keys move between messages, and Tab moves on to a message's buttons.
function setReachable(row, reachable) {
  row.tabIndex = reachable ? 0 : -1;
  for (const tool of row.querySelectorAll("button")) tool.tabIndex = row.tabIndex;
}

function focusRow(row, scroll = true) {
  row?.focus({ preventScroll: !scroll });
}

$("log").addEventListener("focusin", ({ target }) => {
  const row = target.closest(".message");
  $("log").querySelectorAll('[tabindex="0"].message').forEach((other) => other !== row && setReachable(other, false));
  setReachable(row, true);
});

$("log").addEventListener("click", ({ target }) => {
  if (!target.closest("button")) focusRow(target.closest(".message"), false); // shows its buttons on a phone
});

$("log").addEventListener("keydown", (event) => {
  const row = event.target.closest(".message");
  const to = {
    ArrowUp: row.previousElementSibling, ArrowDown: row.nextElementSibling,
    Home: $("log").firstElementChild, End: $("log").lastElementChild, Escape: $("body"),
  }[event.key];
  if (!to) return;
  event.preventDefault();
  to.focus();
});

// ---- Writing --------------------------------------------------------------------------------------------------

const MAX_LENGTH = 2000; // enforced by the server
const doing = new Doing(() => room?.channel.send("doing", doing.now()));

$("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const body = $("body").value.trim();
  if (body === "") return;
  setBody("");
  doing.messageSent();
  room.say(body);
});

$("body").addEventListener("keydown", (event) => {
  // isComposing: this Enter selects a word of an input method
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  } else if (event.key === "ArrowUp" && $("body").value === "") {
    event.preventDefault();
    focusRow($("log").lastElementChild);
  }
});

$("body").addEventListener("input", () => {
  setBody($("body").value);
  doing.textChanged($("body").value !== "");
});

function setBody(text) {
  if ($("body").value !== text) $("body").value = text;
  $("body").style.height = "auto";
  $("body").style.height = `${$("body").scrollHeight}px`;
  const left = MAX_LENGTH - [...text.trim()].length;
  $("left").textContent = left < 200 ? left : "";
  $("left").classList.toggle("over", left < 0);
}

// ---- The connection -------------------------------------------------------------------------------------------

const wire = network(socket, {
  isJoining: () => room !== null && room.channel.state !== "joined",
  onpick(transport) {
    sessionStorage.transport = transport;
    showOtherTab();
  },
});
$("wire").replaceWith(wire.element);

function showStatus() {
  wire.show();
}

// Links to the same room over the other transport, for a second tab.
function showOtherTab() {
  const other = socket.preferred === "websocket" ? "longpoll" : "websocket";
  const link = `/?${new URLSearchParams({ room: room?.roomName ?? $("room").value, transport: other })}`;
  document.querySelectorAll(".other-tab").forEach((a) => (a.href = link));
  document.querySelectorAll(".other-transport").forEach((a) => (a.textContent = other === "websocket" ? "WebSocket" : "long poll"));
}

function toast(text) {
  const shown = Object.assign(document.createElement("p"), { textContent: text });
  $("toasts").append(shown);
  setTimeout(() => shown.remove(), 6_000);
}

// Shows a note about the session for a while. A newer note replaces it.
let noteTimer;

function note(text) {
  clearTimeout(noteTimer);
  $("session").textContent = text;
  noteTimer = setTimeout(() => ($("session").textContent = ""), 6_000);
}

socket.onchange = showStatus;
socket.connect();
showOtherTab();

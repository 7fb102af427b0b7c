// Notifications: two devices of Ada, and Bob, who has a connection without a device to look at.

import { Socket } from "./client/socket.js";
import { Device } from "./device.js";
import { make } from "./make.js";

const KINDS = { orders: "Orders", reports: "Reports" };

export function notifications(part) {
  const devices = [
    new Device(part, { name: "Ada’s laptop", user: "ada" }),
    new Device(part, { name: "Ada’s phone", user: "ada" }),
  ];
  devices.forEach(inbox);

  const bob = new Socket("/socket", { user: "bob" });
  bob.connect();
  const shop = bob.channel("shop:lamps", () => ({}));
  shop.join();
  const actions = {
    order: () => shop.push("order", { item: "a lamp" }),
    report: () =>
      fetch("/notify", {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ kind: "reports", text: `Backup finished at ${new Date().toLocaleTimeString()}` }),
      }),
    spy() {
      const spied = bob.channel("user:ada", () => ({}));
      spied.onrefused = ({ message }) => devices[0].note(`Bob was refused: ${message}`);
      spied.join();
    },
  };
  for (const [name, action] of Object.entries(actions)) {
    part.querySelector(`[data-testid="${name}"]`).onclick = () => Promise.resolve(action()).catch(({ message }) => devices[0].note(message));
  }
  return () => [bob, ...devices].forEach((it) => it.close());
}

function inbox(device) {
  const count = make("span", { className: "badge", testid: "unread" });
  const readAll = make("button", { type: "button", className: "quiet", textContent: "Mark all as read", testid: "read-all" });
  const list = make("ul", { className: "inbox" });
  const empty = make("p", { className: "empty", textContent: "Nothing yet." });
  const mutes = Object.entries(KINDS).map(([kind, name]) => {
    const box = make("input", { type: "checkbox", testid: `mute-${kind}` });
    box.onchange = () => tell("mute", { kind, on: !box.checked });
    return { kind, box, label: make("label", {}, box, ` ${name}`) };
  });
  device.body.append(
    make("div", { className: "row" }, make("h4", { textContent: "Unread " }, count), readAll),
    list,
    empty,
    make("fieldset", {}, make("legend", { textContent: "Notify me of" }), ...mutes.map(({ label }) => label)),
  );

  let shown = null;
  let version = 0; // of what is shown, since the last join: a server that has forgotten inboxes begins anew
  const channel = device.channel("user:ada", () => (version = 0));
  const tell = (event, payload) =>
    channel.push(event, payload).catch(({ message }) => {
      device.note(`Not saved: ${message}`);
      if (shown) show(shown);
    });

  function show(inbox) {
    count.textContent = inbox.unread;
    count.dataset.some = inbox.unread > 0;
    readAll.disabled = inbox.unread === 0;
    readAll.onclick = () => tell("read", { id: inbox.last_id });
    for (const { kind, box } of mutes) box.checked = !inbox.muted.includes(kind);
    empty.hidden = inbox.notes.length > 0;
    list.replaceChildren(...inbox.notes.slice(0, 5).map((note) => noteRow(note, inbox)));
  }

  function noteRow({ id, kind, text }, inbox) {
    const what = make("span", { className: "what", textContent: text });
    const row = make("li", { testid: "notification" }, make("span", { className: "kind", textContent: KINDS[kind] }), what);
    if (id > inbox.read_id) {
      row.classList.add("unread");
      row.append(make("span", { className: "sr-only", textContent: "unread" }));
    }
    return row;
  }

  channel.on("inbox", (inbox) => {
    if (inbox.version < version) return;
    version = inbox.version;
    const isNew = shown !== null && inbox.last_id > shown.last_id;
    if (isNew) device.note(`${inbox.notes[0].text}`);
    shown = inbox;
    show(inbox);
  });
  channel.join();
}

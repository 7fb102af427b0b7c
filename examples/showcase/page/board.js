// Synchronisation: the same board on two devices. Each has the tasks that the server has confirmed, a queue of changes
// that it has not, and shows the one over the other.

import { randomId } from "./client/socket.js";
import { Device } from "./device.js";
import { make } from "./make.js";

const COLUMNS = { todo: "To do", doing: "Doing", done: "Done" };
const FIRST = ["Water the plants", "Book the train", "Call the bank"];

export function board(part) {
  const devices = ["Laptop", "Phone"].map((name) => new Device(part, { name, user: "ada" }));
  devices.forEach((device) => new Board(device));
  return () => devices.forEach((device) => device.close());
}

class Board {
  #device;
  #channel;
  #tasks = new Map(); // id -> task, as the server has confirmed it
  #queue; // [{ change, task }], the oldest first
  #isSending = false;
  #conflicts = new Map(); // id -> this device's task
  #view;

  constructor(device) {
    this.#device = device;
    this.#queue = JSON.parse(sessionStorage[this.#key()] ?? "[]");
    this.#view = new View(device, (task) => this.#change(task), (id, choice) => this.#resolve(id, choice));
    this.#channel = device.channel("board:ada", (reply, isFirst) => this.#joined(reply, isFirst));
    this.#channel
      .on("task", (task) => this.#received([task]))
      .on("tasks", ({ tasks }) => {
        this.#tasks.clear(); // a server that has forgotten tasks begins anew with their versions, too
        this.#received(tasks);
        // Both devices may do this: by its id, each change counts once.
        if (tasks.length === 0) FIRST.forEach((text, i) => this.#change({ id: `${i}`, version: 0, text, column: "todo" }, `first ${i}`));
      });
    this.#channel.join();
    this.#show();
  }

  #key() {
    return `changes of ${this.#device.name}`;
  }

  #joined({ resumed, recovered }, isFirst) {
    if (!isFirst) {
      const how = resumed ? "same session" : recovered ? "caught up from the history" : "started from the whole board";
      this.#device.note(`Back: ${how}`);
    }
    this.#send();
  }

  #received(tasks) {
    for (const task of tasks) {
      if (!(this.#tasks.get(task.id)?.version >= task.version)) this.#tasks.set(task.id, task);
    }
    this.#show();
  }

  // Changes a task at once, and sends the change until it is acknowledged. Its version is the one that it is based on;
  // a change behind another one of the same task is based on what that makes of it.
  #change(task, change = randomId()) {
    const before = this.#queue.findLast((queued) => queued.task.id === task.id);
    const version = before ? before.task.version + 1 : task.version;
    this.#queue.push({ change, task: { ...task, version } });
    this.#show();
    this.#send();
  }

  async #send() {
    if (this.#isSending || this.#queue.length === 0 || this.#channel.state !== "joined") return;
    this.#isSending = true;
    const first = this.#queue[0];
    try {
      const task = await this.#channel.push("change", first);
      this.#queue.shift();
      this.#received([task]);
    } catch (error) {
      if (error.kind === "refused" && error.message !== "unavailable") this.#refused(first, error);
      else if (this.#channel.state !== "joined") return; // it is sent again after the next join
    } finally {
      this.#isSending = false;
    }
    this.#send();
  }

  // Takes back all changes of the task. In a conflict, the last of them waits for a decision.
  #refused({ task: { id } }, { message, response }) {
    const mine = this.#queue.findLast(({ task }) => task.id === id).task;
    this.#queue = this.#queue.filter(({ task }) => task.id !== id);
    if (message === "conflict") this.#conflicts.set(id, mine);
    else this.#device.note(message);
    this.#received(response.task ? [response.task] : []);
  }

  #resolve(id, choice) {
    const mine = this.#conflicts.get(id);
    this.#conflicts.delete(id);
    if (choice === "mine") this.#change({ ...mine, version: this.#tasks.get(id).version });
    else if (choice === "both") this.#change({ ...mine, id: randomId(), version: 0 });
    else this.#show();
  }

  #show() {
    sessionStorage[this.#key()] = JSON.stringify(this.#queue);
    const tasks = new Map(this.#tasks);
    this.#queue.forEach(({ task }) => tasks.set(task.id, task));
    const waiting = new Set(this.#queue.map(({ task }) => task.id));
    this.#view.show(tasks, waiting, this.#conflicts, this.#queue.length);
  }
}

// ---- What a device shows ----------------------------------------------------------------------------------------

class View {
  #rows = new Map(); // id -> { element, input, move, ... }
  #lists = {};
  #waiting = make("p", { className: "count", testid: "waiting" });
  #onchange;
  #onresolve;

  constructor(device, onchange, onresolve) {
    this.#onchange = onchange;
    this.#onresolve = onresolve;
    const input = make("input", { placeholder: "A new task", maxLength: 200, testid: "new-task", enterKeyHint: "done" });
    input.setAttribute("aria-label", "A new task");
    const form = make("form", { className: "add" }, input, make("button", { className: "primary", textContent: "Add" }));
    form.onsubmit = (event) => {
      event.preventDefault();
      const text = input.value.trim();
      if (text !== "") onchange({ id: randomId(), version: 0, text, column: "todo" });
      input.value = "";
    };
    const columns = Object.entries(COLUMNS).map(([name, title]) => {
      this.#lists[name] = make("ul", { testid: `column-${name}` });
      return make("section", { className: "column" }, make("h4", { textContent: title }), this.#lists[name]);
    });
    device.body.append(form, make("div", { className: "columns" }, ...columns), this.#waiting);
  }

  show(tasks, waiting, conflicts, count) {
    for (const task of tasks.values()) {
      if (!this.#rows.has(task.id)) this.#rows.set(task.id, this.#newRow());
      this.#update(this.#rows.get(task.id), task, waiting.has(task.id), conflicts.get(task.id));
    }
    for (const [id, row] of this.#rows) {
      if (tasks.has(id)) continue;
      row.element.remove();
      this.#rows.delete(id);
    }
    const text = count === 0 ? "Everything is saved" : `${count} ${count === 1 ? "change waits" : "changes wait"} to be sent`;
    if (this.#waiting.textContent !== text) this.#waiting.textContent = text;
  }

  #newRow() {
    const input = make("textarea", { className: "text", rows: 1, maxLength: 200, testid: "task-text", enterKeyHint: "done" });
    const back = make("button", { type: "button", textContent: "←", testid: "back" });
    const forth = make("button", { type: "button", textContent: "→", testid: "forth" });
    const conflict = make("div", { className: "conflict", testid: "conflict", hidden: true });
    const tools = make("span", { className: "moves" }, back, forth);
    const element = make("li", { className: "task", testid: "task" }, make("div", { className: "row" }, input, tools), conflict);
    return { element, input, back, forth, conflict };
  }

  #update(row, task, isWaiting, mine) {
    const { element, input, back, forth } = row;
    const columns = Object.keys(COLUMNS);
    const at = columns.indexOf(task.column);
    if (element.parentElement !== this.#lists[task.column]) {
      const focused = element.contains(document.activeElement) ? document.activeElement : null;
      this.#lists[task.column].append(element);
      (focused?.disabled ? input : focused)?.focus();
    }
    element.classList.toggle("waiting", isWaiting);
    if (document.activeElement !== input) input.value = task.text;
    input.dataset.text = task.text;
    input.setAttribute("aria-label", isWaiting ? "Task, not sent yet" : "Task");
    // What the user sees is what they change, so it names the version.
    const commit = () => {
      const text = input.value.replaceAll("\n", " ").trim();
      if (text !== "" && text !== task.text) this.#onchange({ ...task, text });
      else input.value = task.text;
    };
    input.onchange = commit;
    input.onkeydown = (event) => {
      if (event.key === "Escape") input.value = task.text;
      if (event.isComposing || (event.key !== "Enter" && event.key !== "Escape")) return;
      event.preventDefault();
      input.blur();
    };
    for (const [button, to] of [[back, columns[at - 1]], [forth, columns[at + 1]]]) {
      button.disabled = to === undefined;
      button.setAttribute("aria-label", to ? `Move “${task.text}” to ${COLUMNS[to]}` : "");
      button.onclick = () => this.#onchange({ ...task, column: to });
    }
    this.#showConflict(row, task, mine);
  }

  #showConflict({ conflict }, task, mine) {
    conflict.hidden = mine === undefined;
    if (mine === undefined) return conflict.replaceChildren();
    const choose = (choice, textContent) => {
      const button = make("button", { type: "button", className: "quiet", textContent, testid: `keep-${choice}` });
      button.onclick = () => this.#onresolve(task.id, choice);
      return button;
    };
    const what = mine.text === task.text ? `moved to ${COLUMNS[mine.column]}` : `“${mine.text}”`;
    const text = make("p", { textContent: `Another device was first. Yours: ${what}` });
    text.setAttribute("role", "alert");
    conflict.replaceChildren(text, choose("theirs", "Use theirs"), choose("mine", "Use mine"), choose("both", "Keep both"));
  }
}

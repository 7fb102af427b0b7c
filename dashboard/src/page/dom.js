// Elements and texts. Whatever comes from the server becomes text; nothing is ever interpreted as HTML.

// Creates an element. Properties are set as they are, except `class`, `data` and those with a dash, which are attributes.
export function el(name, props = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (key === "class") node.className = value;
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key.includes("-") || key === "role" || key === "scope" || key === "for") node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Creates an SVG element with attributes.
export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Changes a text only where it differs, so that screen readers and selections are left alone.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Shows rows by their keys: those that stay keep their elements, and with them the focus.
export function fill(parent, rows, keyOf, create, update) {
  const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let last = null;
  for (const row of rows) {
    const key = String(keyOf(row));
    let node = known.get(key);
    known.delete(key);
    if (!node) {
      node = create(row);
      node.dataset.key = key;
    }
    update?.(node, row);
    const next = last ? last.nextSibling : parent.firstChild;
    if (next !== node) parent.insertBefore(node, next);
    last = node;
  }
  known.forEach((node) => node.remove());
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

export const count = (number) => whole.format(number);

// A number that has little room.
export const brief = (number) => (number < 100 ? String(Math.round(number * 10) / 10) : short.format(number).replace("K", "k"));

export function bytes(number) {
  if (number < 1024) return `${Math.round(number)} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let unit = -1;
  while (number >= 1000 && unit < units.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${number < 10 ? number.toFixed(1) : Math.round(number)} ${units[unit]}`;
}

export function millis(number) {
  if (number < 10) return `${number.toFixed(1)} ms`;
  return number < 1000 ? `${Math.round(number)} ms` : `${(number / 1000).toFixed(1)} s`;
}

export function duration(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} days`;
}

export const clock = (time) => new Date(time).toLocaleTimeString("en-GB");

export const transportName = { websocket: "WebSocket", longpoll: "Long poll" };

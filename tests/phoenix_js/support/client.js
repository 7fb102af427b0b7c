// The clients under test: one version of the package over one transport.
import { createRequire } from "node:module";
import { WebSocket } from "ws";
import { XMLHttpRequest } from "./xhr.js";

const require = createRequire(import.meta.url);

/** Loads a version of the package as a page would find its surroundings. */
async function load(name) {
  const { version } = require(`../node_modules/${name}/package.json`);
  const [, minor, patch] = version.split(".").map(Number);
  // before 1.7 it looks for globals on `self` only; before 1.8 its long poll knows no `fetch`
  globalThis.self ??= globalThis;
  if (minor < 8) globalThis.XMLHttpRequest = XMLHttpRequest;
  const module = await import(name);
  const { Socket, LongPoll, Presence } = module.default ?? module;
  return {
    version,
    Socket,
    LongPoll,
    Presence,
    can: {
      batchOverLongPoll: minor >= 7,
      binaryUpOverLongPoll: minor >= 7,
      fallBack: minor >= 7,
      changeTransport: minor >= 6,
      /** 1.5 lets its last heartbeat run on after a disconnect. */
      endHeartbeat: minor >= 6,
      sendAuthToken: minor >= 8,
      /** Older ones take the 410 of an ended session for a first one and believe themselves still joined. */
      noticeAnEndedPoll: minor > 8 || (minor === 8 && patch >= 2),
    },
  };
}

/** Every transport of the package in `node_modules/<name>`, as clients of `server`. */
export async function clients(name, server) {
  const phoenix = await load(name);
  return ["websocket", "longpoll"].map((transport) => new Client(phoenix, transport, server));
}

let counter = 0;

/** A topic (or a user) that no other test uses. */
export const unique = (prefix) => `${prefix}${process.pid}-${(counter += 1)}`;

class Client {
  constructor(phoenix, transport, server) {
    Object.assign(this, { phoenix, transport, server, can: phoenix.can, overWebSocket: transport === "websocket" });
  }

  get name() {
    return `phoenix ${this.phoenix.version} over ${this.transport}`;
  }

  /** What makes a socket one of this client. */
  options() {
    return {
      transport: this.overWebSocket ? WebSocket : this.phoenix.LongPoll,
      sessionStorage: new Storage(),
      heartbeatIntervalMs: this.can.endHeartbeat ? 30_000 : 1_000,
    };
  }

  /**
   * A socket that is not connected yet. The test's end disconnects it. `to` is a proxy or another server, and `keep`
   * has the last word on the options.
   */
  socket(t, { to = this.server, keep = (options) => options, ...options } = {}) {
    const defaults = { timeout: 8000, rejoinAfterMs: () => 20, reconnectAfterMs: () => 20, ...this.options() };
    const socket = new this.phoenix.Socket(`ws://${to.host}/socket`, keep({ ...defaults, ...options }));
    t.after(() => {
      // before 1.8 a reconnect that is under way survives a disconnect
      socket.connect = () => {};
      socket.disconnect();
    });
    return socket;
  }

  /** A socket that is on its way. */
  connect(t, options) {
    const socket = this.socket(t, options);
    socket.connect();
    return socket;
  }
}

/** What phoenix.js remembers its fallback in; one of its own for each socket, so that no test sees another's. */
export class Storage {
  #items = new Map();
  getItem = (key) => this.#items.get(key) ?? null;
  setItem = (key, value) => this.#items.set(key, value);
}

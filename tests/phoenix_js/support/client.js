// The clients under test: one version of the package over one transport.
import { createRequire } from "node:module";
import { WebSocket } from "ws";
import { XMLHttpRequest } from "./xhr.js";

const require = createRequire(import.meta.url);

/** Loads a version of the package with the globals that it expects in a page. */
async function load(name) {
  const { version } = require(`../node_modules/${name}/package.json`);
  const [, minor] = version.split(".").map(Number);
  // before 1.7 it looks for globals on `self` only; before 1.8 its long poll does not use `fetch`
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
      /** 1.5 leaves its last heartbeat timer running after a disconnect. */
      endHeartbeat: minor >= 6,
      sendAuthToken: minor >= 8,
    },
  };
}

/** Returns a client of `server` for each transport of the package in `node_modules/<name>`. */
export async function clients(name, server) {
  const phoenix = await load(name);
  return ["websocket", "longpoll"].map((transport) => new Client(phoenix, transport, server));
}

let counter = 0;

/** Returns a topic or user name that no other test uses. */
export const unique = (prefix) => `${prefix}${process.pid}-${(counter += 1)}`;

class Client {
  constructor(phoenix, transport, server) {
    Object.assign(this, { phoenix, transport, server, can: phoenix.can, overWebSocket: transport === "websocket" });
  }

  get name() {
    return `phoenix ${this.phoenix.version} over ${this.transport}`;
  }

  /** Socket options of this client. */
  options() {
    return {
      transport: this.overWebSocket ? WebSocket : this.phoenix.LongPoll,
      sessionStorage: new Storage(),
      heartbeatIntervalMs: this.can.endHeartbeat ? 30_000 : 1_000,
    };
  }

  /**
   * Creates a socket without connecting it; the end of the test disconnects it. `to` is a proxy or another server, and
   * `keep` makes the final changes to the options.
   */
  socket(t, { to = this.server, keep = (options) => options, ...options } = {}) {
    const defaults = { timeout: 8000, rejoinAfterMs: () => 20, reconnectAfterMs: () => 20, ...this.options() };
    const socket = new this.phoenix.Socket(`ws://${to.host}/socket`, keep({ ...defaults, ...options }));
    t.after(() => {
      // before 1.8 a pending reconnect survives a disconnect
      socket.connect = () => {};
      socket.disconnect();
    });
    return socket;
  }

  /** Creates a socket and starts to connect it. */
  connect(t, options) {
    const socket = this.socket(t, options);
    socket.connect();
    return socket;
  }
}

/** Stands in for `sessionStorage`, where phoenix.js remembers a fallback. One per socket keeps tests independent. */
export class Storage {
  #items = new Map();
  getItem = (key) => this.#items.get(key) ?? null;
  setItem = (key, value) => this.#items.set(key, value);
}

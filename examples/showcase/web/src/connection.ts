// A socket of phoenix.js with a session that is kept, and a bad network to try on it: the interface that network.js
// expects.

import { LongPoll, Socket } from "phoenix";
import { keepSession } from "tower-channels-client";

type TransportName = "websocket" | "longpoll";

const FALLBACK_MS = 2_500;
const RETRY_MS = 300;
const PING_MS = 5_000;

/** Lets actions pass after a delay, in order. */
class DelayLine {
  #waiting: { due: number; action: () => void }[] = [];

  pass(ms: number, action: () => void) {
    if (ms === 0 && this.#waiting.length === 0) return action();
    this.#waiting.push({ due: performance.now() + ms, action });
    setTimeout(() => this.#release(), ms);
  }

  #release() {
    const now = performance.now() + 1; // timers may be early by a fraction
    while (this.#waiting.length > 0 && this.#waiting[0].due <= now) this.#waiting.shift()!.action();
  }
}

/** A WebSocket that never opens. */
class BrokenWebSocket {
  readyState = WebSocket.CONNECTING as number;
  bufferedAmount = 0;
  onopen = () => {};
  onmessage = () => {};
  onerror = (_: unknown) => {};
  onclose = (_: unknown) => {};

  constructor() {
    setTimeout(() => {
      if (this.readyState !== WebSocket.CONNECTING) return;
      this.readyState = WebSocket.CLOSED;
      this.onerror(new Event("error"));
      this.onclose(new CloseEvent("close", { code: 1006 }));
    }, 50);
  }

  send() {}

  close() {
    this.readyState = WebSocket.CLOSED;
  }
}

export class Connection {
  state: "connecting" | "open" | "waiting" | "closed" = "connecting";
  offline = false;
  blocked = false;
  delay = 0;
  rtt: number | null = null;
  problem = "";
  preferred: TransportName = "websocket";
  onchange = () => {};

  readonly socket: Socket;
  #transport: new (url: string, protocols?: string[]) => object;
  #up = new DelayLine();
  #down = new DelayLine();
  #pinging: ReturnType<typeof setInterval>;

  constructor(path: string, params: Record<string, string>) {
    const isBroken = () => this.offline || this.blocked || this.preferred === "longpoll";
    this.#transport = class {
      constructor(url: string, protocols?: string[]) {
        return isBroken() ? new BrokenWebSocket() : new WebSocket(url, protocols);
      }
    };
    const connection = this;
    const options = keepSession({
      params,
      longPollFallbackMs: FALLBACK_MS,
      transport: this.#transport,
      reconnectAfterMs: (tries: number) => (this.offline ? RETRY_MS : [100, 300, 1_000][tries - 1] ?? 3_000),
      returnAfterMs: () => 3_000,
      steadyAfterMs: 1_000,
      encode(this: any, data: object, done: (encoded: any) => void) {
        connection.#up.pass(connection.delay, () => this.defaultEncoder(data, done));
      },
      decode(this: any, data: any, done: (decoded: any) => void) {
        connection.#down.pass(connection.delay, () => this.defaultDecoder(data, done));
      },
    });
    this.socket = new Socket(path, options as object);
    this.socket.onOpen(() => {
      this.#become("open");
      this.#ping();
    });
    this.socket.onClose(() => this.#become("waiting"));
    this.socket.onError(() => this.#become("waiting"));
    this.#pinging = setInterval(() => this.#ping(), PING_MS);
  }

  get transportName(): TransportName {
    return (this.socket as any).transport === LongPoll ? "longpoll" : "websocket";
  }

  connect() {
    this.socket.connect();
  }

  use(transport: TransportName) {
    this.preferred = transport;
    this.#start();
  }

  cut(ms: number) {
    if (this.offline) return;
    this.stayOffline(true);
    setTimeout(() => this.stayOffline(false), ms);
  }

  stayOffline(offline: boolean) {
    this.offline = offline;
    this.#start();
  }

  block(blocked: boolean) {
    this.blocked = blocked;
    this.#start();
  }

  slow(ms: number) {
    this.delay = ms;
    this.onchange();
  }

  forget() {
    this.socket.disconnect();
    this.#become("waiting");
    setTimeout(() => this.#start(), 500);
  }

  close() {
    if (this.state === "closed") return;
    clearInterval(this.#pinging);
    this.socket.disconnect();
    this.#become("closed");
  }

  /** Connects anew, in the same session, over the transport that there is. */
  #start() {
    if (this.state === "closed") return; // since the fault that ends now began
    const isLongPoll = this.preferred === "longpoll" && !this.offline;
    const socket = this.socket as any;
    socket.longPollFallbackMs = this.offline || isLongPoll ? undefined : FALLBACK_MS;
    socket.replaceTransport(isLongPoll ? LongPoll : this.#transport);
    socket.connect();
    this.#become("waiting");
  }

  #ping() {
    if (!this.socket.isConnected()) return;
    (this.socket as any).ping((rtt: number) => {
      this.rtt = rtt;
      this.onchange();
    });
  }

  #become(state: Connection["state"]) {
    if (this.state === "closed") return;
    this.state = state;
    if (state !== "open") this.rtt = null;
    this.onchange();
  }
}

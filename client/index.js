// A resumable session for a phoenix.js `Socket`. The server retains each message until this client has acknowledged
// it, delivers it over whichever transport the client reconnects with, and never delivers it twice. In the other
// direction the client keeps each push until the server has handled it, and the server never handles it twice.
//
// phoenix.js calls `params`, `encode` and `decode` as methods of its socket, so `this` is the socket in all of them.

import { Positions } from "./positions.js";
import { KeptPushes } from "./pushes.js";

const RETURN_AFTER_MS = [5_000, 15_000, 30_000, 60_000, 120_000];
const MAX_RETURN_AFTER_MS = 300_000;
const STEADY_AFTER_MS = 5_000;
const QUIET_WITHIN_MS = 1_000;
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
const OPEN = 1;

/** Returns options that make one phoenix.js `Socket` resumable. Call it once per socket. */
export function keepSession(options = {}) {
  let session = newId();
  let received = 0;
  let isNumbered = true; // false if the server numbers nothing, as when two clients compete for one session id
  let socket = null;
  let pushes = null;
  let positions = null;
  let latest = null; // the most recently opened connection
  let isHidden = false; // the page is gone, or waits in the browser's back/forward cache

  function params() {
    if (socket === null) attach(this);
    if (socket !== this) throw new Error("these options belong to another socket: call keepSession() once per socket");
    if (latest && (latest !== this.conn || latest.readyState !== OPEN)) detachListeners(latest);
    return { ...ownParams(this, options), session, received, binary: "base64", pushes: "once", positions: "all" };
  }

  function attach(newSocket) {
    socket = newSocket;
    Object.assign(socket, { encode, decode }); // phoenix.js ignores the options when it starts on long poll
    // The server gives such a session to a client whose older connections seem to be another client. What it has sent there
    // waits in the one before, too, which would send it again.
    pushes = new KeptPushes(socket, options, () => (session = newId()));
    positions = new Positions(socket);
    socket.onOpen(() => (latest = socket.conn));
    const { disconnect } = socket;
    socket.disconnect = (...args) => {
      if (!isHidden) endSession(); // phoenix.js itself disconnects a page that may be shown again
      return disconnect.apply(socket, args);
    };
    returnToWebSocket(socket, options, () => pushes.areTracked());
  }

  /** Ends the session for good. The next connection begins another one. */
  function endSession() {
    const conn = socket?.conn;
    if (conn?.readyState === OPEN) sendFromUnloadingPage(conn, endMessage(socket.vsn));
    session = newId();
  }

  onPage("pagehide", ({ persisted }) => {
    isHidden = true;
    if (!persisted) endSession();
  });
  onPage("pageshow", () => (isHidden = false));

  function encode(data, done) {
    const inner = options.encode ?? this.defaultEncoder;
    inner.call(this, data, (encoded) => {
      pushes.keep(data, encoded);
      done(positions.name(data, encoded));
    });
  }

  function decode(data, done) {
    const { conn } = this;
    const inner = options.decode ?? this.defaultDecoder;
    const decodable = isBase64(data) ? fromBase64(data) : data;
    inner.call(this, decodable, (message) => {
      const marks = takeMarks(message);
      // If the connection was torn down during decoding, phoenix.js drops the message and the server resends it.
      if (this.conn !== conn || !isNew(message, marks.number, typeof decodable === "string")) return;
      if (positions.receive(message, marks.position) && !pushes.receive(message)) done(message);
    });
  }

  /** Judges a message by its sequence number. Binary messages have none and are counted instead. */
  function isNew({ ref }, mark, isText) {
    if (ref != null) return true; // a reply
    if (isText) isNumbered = mark !== undefined;
    if (!isNumbered) return true;
    const number = mark === undefined ? received + 1 : Number(mark);
    if (number <= received) return false;
    received = number;
    return true;
  }

  return { ...options, params, encode, decode };
}

/**
 * Moves a socket that fell back to long poll back to WebSocket; phoenix.js never does. A probe opens a WebSocket
 * next to the long poll, outside the session, and the socket moves once the probe got a reply and stayed open for
 * a while. The delay grows with each try and resets once a WebSocket of the socket itself has lived long enough.
 */
function returnToWebSocket(socket, options, areTracked) {
  const { returnAfterMs = backoff, steadyAfterMs = STEADY_AFTER_MS } = options;
  const webSocket = options.transport ?? globalThis.WebSocket;
  const longPoll = socket.getLongPollTransport?.(); // absent in the oldest versions, which cannot switch
  if (!webSocket || !longPoll || webSocket === longPoll) return;

  const isOnLongPoll = () => socket.isConnected() && socket.transport !== webSocket;
  let tries = 0;
  let openedAt = 0;
  let timer = null; // the next step; at most one is pending
  let probe = null;
  let answered = false;

  socket.onOpen(() => {
    if (isOnLongPoll()) return scheduleProbe();
    openedAt = Date.now();
    setTimeout(forgetFallback); // deferred: phoenix.js before 1.8.12 records an earlier fallback in this tick
  });
  socket.onClose(() => {
    if (openedAt && Date.now() - openedAt > 12 * steadyAfterMs) tries = 0;
    openedAt = 0;
    if (socket.closeWasClean) {
      clearTimeout(timer); // the application disconnected the socket
      timer = null;
      probe?.disconnect();
    }
  });

  function schedule(next, afterMs) {
    timer = setTimeout(() => {
      timer = null;
      next();
    }, afterMs);
  }

  function scheduleProbe() {
    if (timer) return;
    tries += 1;
    schedule(startProbe, returnAfterMs(tries));
  }

  function startProbe() {
    if (!isOnLongPoll()) return;
    probe ??= newProbe();
    answered = false;
    probe.connect();
    schedule(finishProbe, steadyAfterMs);
  }

  function finishProbe() {
    const steady = answered && probe.isConnected();
    probe.disconnect();
    if (steady) moveToWebSocket(Date.now() + QUIET_WITHIN_MS);
    else if (isOnLongPoll()) scheduleProbe();
  }

  /**
   * Waits until no POST is in flight, since phoenix.js would not repeat it. That moment may never come while the
   * application pushes: where the session tracks pushes, so that they are repeated, the socket moves without it.
   */
  function moveToWebSocket(deadline) {
    if (!isOnLongPoll()) return;
    const { reqs, currentBatch } = socket.conn;
    const isBusy = currentBatch || reqs.size > 1;
    if (isBusy && !(areTracked() && Date.now() > deadline)) return schedule(() => moveToWebSocket(deadline), 20);
    forgetFallback();
    socket.replaceTransport(webSocket);
    socket.connect();
  }

  /** Creates a socket that only tests whether WebSocket works. */
  function newProbe() {
    const endPoint = socket.endPoint.replace(/\/websocket$/, "");
    const quiet = { longPollFallbackMs: 0, reconnectAfterMs: () => MAX_TIMEOUT_MS, logger: null, debug: false };
    const params = () => {
      const { session, ...others } = ownParams(probe, options);
      return others;
    };
    const probe = new socket.constructor(endPoint, { ...options, ...quiet, params });
    probe.onOpen(() => probe.ping(() => (answered = true)));
    return probe;
  }

  /** phoenix.js remembers a fallback for the lifetime of the tab and would return to long poll at once. */
  function forgetFallback() {
    for (const name of ["LongPoll", longPoll.name]) {
      const key = `phx:fallback:${name}`;
      if (socket.sessionStore?.getItem(key)) socket.sessionStore.setItem(key, "");
    }
  }
}

const endMessage = (vsn) =>
  vsn.startsWith("1.")
    ? JSON.stringify({ topic: "phoenix", event: "end_session", payload: {}, ref: null })
    : JSON.stringify([null, null, "phoenix", "end_session", {}]);

/** Sends a message at once. phoenix.js would POST it later, and a page that unloads has no later. */
function sendFromUnloadingPage(conn, message) {
  if (!conn.endpointURL) return conn.send(message);
  // A single text as `text/plain` needs no preflight.
  fetch(conn.endpointURL(), { method: "POST", body: message, keepalive: true }).catch(() => {});
}

/**
 * Takes the sequence number and the position out of a message: `s:NUMBER`, `p:POSITION` or `s:NUMBER:POSITION` in place of
 * a null ref, and `p:POSITION` in place of the join_ref of a binary message.
 */
function takeMarks(message) {
  const [, number, position] = /^(?:s:(\d+)|p)(?::(.+))?$/.exec(message.ref) ?? [];
  if (number ?? position) message.ref = null;
  if (position || !message.join_ref?.startsWith?.("p:")) return { number, position };
  const inBinary = message.join_ref.slice(2);
  message.join_ref = null;
  return { number, position: inBinary };
}

/** Listens to the page, ahead of phoenix.js. There is none outside of browsers. */
function onPage(event, listener) {
  globalThis.addEventListener?.(event, listener, { capture: true });
}

/** The application's own connect parameters, given as an object or a function. */
function ownParams(socket, { params }) {
  return { ...(typeof params === "function" ? params.call(socket) : params) };
}

/** Backoff with jitter, so that clients that lost their WebSockets together do not return together. */
const backoff = (tries) => (RETURN_AFTER_MS[tries - 1] ?? MAX_RETURN_AFTER_MS) * (0.75 + Math.random() / 2);

/**
 * Older versions keep listening to a connection that they have replaced. The server resends its remaining messages
 * on the next connection, and its close must not be taken for the close of that one.
 */
function detachListeners(conn) {
  for (const event of ["onopen", "onmessage", "onerror", "onclose"]) conn[event] = () => {};
}

/** 128 random bits as 22 characters. */
function newId() {
  const bytes = String.fromCharCode(...crypto.getRandomValues(new Uint8Array(16)));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Over long poll, a binary message is base64 and text is JSON: an array, or an object before `vsn` 2. */
const isBase64 = (data) => typeof data === "string" && !/^\s*[[{]/.test(data);
const fromBase64 = (data) => Uint8Array.from(atob(data), (character) => character.charCodeAt(0)).buffer;

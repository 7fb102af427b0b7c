// One session for a phoenix.js `Socket`, whatever becomes of its connections: the server keeps what it has to say
// until this client has seen it, on whichever transport the client comes back, and says nothing twice.
//
// phoenix.js calls `params` and `decode` as methods of its socket: in both, `this` is that socket.

const RETURN_AFTER_MS = [5_000, 15_000, 30_000, 60_000, 120_000];
const RETURN_AT_LAST_AFTER_MS = 300_000;
const STEADY_AFTER_MS = 5_000;
const NEVER_MS = 2 ** 31 - 1;
const OPEN = 1;

/** Options for one phoenix.js `Socket` that keep its session. Call it once for each socket. */
export function keepSession(options = {}) {
  const session = newId();
  let received = 0;
  let isNumbered = true; // whether the server gives numbers, which it may not to two clients of one session
  let socket = null;
  let last = null; // the connection that opened last

  function params() {
    if (socket === null) meet(this);
    if (socket !== this) throw new Error("these options belong to another socket: call keepSession() for each");
    if (last && (last !== this.conn || last.readyState !== OPEN)) silence(last);
    return { ...ownParams(this, options), session, received, binary: "base64" };
  }

  function meet(newcomer) {
    socket = newcomer;
    socket.decode = decode; // an option that phoenix.js ignores if it begins with long poll
    socket.onOpen(() => (last = socket.conn));
    returnToWebSocket(socket, options);
  }

  function decode(data, done) {
    const { conn } = this;
    const inner = options.decode ?? this.defaultDecoder;
    const decodable = isBase64(data) ? fromBase64(data) : data;
    inner.call(this, decodable, (message) => {
      // taken down while it was decoded: phoenix.js drops it, and it is said again
      if (this.conn === conn && isNews(message, typeof decodable === "string")) done(message);
    });
  }

  /** Reads the number that stands where a ref would be null. Only binary messages have no place for one. */
  function isNews(message, isText) {
    const numbered = /^s:(\d+)$/.exec(message.ref);
    if (numbered) message.ref = null;
    if (message.ref != null) return true; // a reply
    if (isText) isNumbered = numbered !== null;
    if (!isNumbered) return true;
    const number = numbered ? Number(numbered[1]) : received + 1;
    if (number <= received) return false;
    received = number;
    return true;
  }

  return { ...options, params, decode };
}

/**
 * phoenix.js falls back to long poll and stays there. This tries a WebSocket beside it, outside the session, and
 * moves the socket once that one was answered and has lived for a while. Each try waits longer than the one before,
 * until a WebSocket of the socket itself has lived for long.
 */
function returnToWebSocket(socket, options) {
  const { returnAfterMs = patience, steadyAfterMs = STEADY_AFTER_MS } = options;
  const webSocket = options.transport ?? globalThis.WebSocket;
  const longPoll = socket.getLongPollTransport?.(); // the oldest versions have no other to change to
  if (!webSocket || !longPoll || webSocket === longPoll) return;

  const isAway = () => socket.isConnected() && socket.transport !== webSocket;
  let tries = 0;
  let openedAt = 0;
  let timer = null; // the next step: one at a time
  let scout = null;
  let answered = false;

  socket.onOpen(() => {
    if (isAway()) return plan();
    openedAt = Date.now();
    setTimeout(forgetFallback); // after phoenix.js, which before 1.8.12 remembers an earlier one just now
  });
  socket.onClose(() => {
    if (openedAt && Date.now() - openedAt > 12 * steadyAfterMs) tries = 0;
    openedAt = 0;
    if (socket.closeWasClean) {
      clearTimeout(timer); // the application has disconnected it
      timer = null;
      scout?.disconnect();
    }
  });

  function step(next, afterMs) {
    timer = setTimeout(() => {
      timer = null;
      next();
    }, afterMs);
  }

  function plan() {
    if (timer) return;
    tries += 1;
    step(look, returnAfterMs(tries));
  }

  function look() {
    if (!isAway()) return;
    scout ??= newScout();
    answered = false;
    scout.connect();
    step(judge, steadyAfterMs);
  }

  function judge() {
    const steady = answered && scout.isConnected();
    scout.disconnect();
    if (steady) move();
    else if (isAway()) plan();
  }

  /** At a moment when nothing is on its way up: phoenix.js would not repeat it. */
  function move() {
    if (!isAway()) return;
    const { reqs, currentBatch } = socket.conn;
    if (currentBatch || reqs.size > 1) return step(move, 20);
    forgetFallback();
    socket.replaceTransport(webSocket);
    socket.connect();
  }

  /** A socket that only shows whether a WebSocket lives. */
  function newScout() {
    const endPoint = socket.endPoint.replace(/\/websocket$/, "");
    const quiet = { longPollFallbackMs: 0, reconnectAfterMs: () => NEVER_MS, logger: null, debug: false };
    const params = () => {
      const { session, ...others } = ownParams(scout, options);
      return others;
    };
    const scout = new socket.constructor(endPoint, { ...options, ...quiet, params });
    scout.onOpen(() => scout.ping(() => (answered = true)));
    return scout;
  }

  /** phoenix.js remembers a fallback for as long as the tab lives, and would go back to long poll at once. */
  function forgetFallback() {
    for (const name of ["LongPoll", longPoll.name]) {
      const key = `phx:fallback:${name}`;
      if (socket.sessionStore?.getItem(key)) socket.sessionStore.setItem(key, "");
    }
  }
}

/** What the application gives, as an object or a function. */
function ownParams(socket, { params }) {
  return { ...(typeof params === "function" ? params.call(socket) : params) };
}

/** Backoff; clients that lost their WebSockets together do not come back together. */
const patience = (tries) => (RETURN_AFTER_MS[tries - 1] ?? RETURN_AT_LAST_AFTER_MS) * (0.75 + Math.random() / 2);

/**
 * Older versions listen on to a connection that they have replaced. What it has still to say is said again on the
 * next one, and its end is not the end of that one.
 */
function silence(conn) {
  for (const event of ["onopen", "onmessage", "onerror", "onclose"]) conn[event] = () => {};
}

/** 128 random bits in 22 characters. */
function newId() {
  const bytes = String.fromCharCode(...crypto.getRandomValues(new Uint8Array(16)));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Over long poll a binary message is base64, and text is JSON: an array, or an object before `vsn` 2. */
const isBase64 = (data) => typeof data === "string" && !/^\s*[[{]/.test(data);
const fromBase64 = (data) => Uint8Array.from(atob(data), (character) => character.charCodeAt(0)).buffer;

// A browser client of Phoenix Channels, protocol version 2.0.0, over WebSocket and long poll.
// It is written to be read; real applications use the `phoenix` package, which works with this server too.
//
// Every message on the wire is a JSON array of five elements:
//
//     [join_ref, ref, topic, event, payload]
//
//     >  ["1", "1", "room:lobby", "phx_join", {"name": "Ada"}]                  join a topic
//     <  ["1", "1", "room:lobby", "phx_reply", {"status": "ok", "response": {…}}]
//     >  ["1", "2", "room:lobby", "new_msg", {"body": "hi"}]                    push an event to it
//     <  ["1", "2", "room:lobby", "phx_reply", {"status": "ok", "response": {}}]
//     <  [null, null, "room:lobby", "new_msg", {"body": "hi", …}]               a broadcast to all members
//     >  [null, "3", "phoenix", "heartbeat", {}]                                a heartbeat
//     <  [null, "3", "phoenix", "phx_reply", {"status": "ok", "response": {}}]
//
// `ref` is the client's number of a message; the reply carries the same ref. `join_ref` is the ref of the join, and
// ties a message to that join: after a second join it identifies leftovers of the first.
//
// A resumable session outlives its connections. A client of this server requests one with three connect parameters:
//
//     session=ID       a random id, one per page load, that fields the session on both transports
//     received=N       the number of the last message received, 0 at first
//     binary=base64    also send binary messages over long poll, as base64 strings
//
// The server then retains messages while the client is away and sends them on its next connection, over either
// transport. It puts a sequence number in place of a null ref, so that the client can drop duplicates:
//
//     <  [null, "s:7", "room:lobby", "new_msg", {"body": "hi", …}]
//
// After each reconnect the client rejoins its topics, as always. A channel that still exists is not joined anew: it
// replies with the result of its `resume` (here `{"resumed": true, …}`) and then sends everything missed, including
// late replies. If the session is gone (expired, or the server has restarted), the rejoin is an ordinary join. In a
// resumable session the server sends join_ref as null, since the join that a message belongs to may be over.
//
// Where the server keeps a history of a topic, messages outlive sessions and servers, too. A client asks for their
// positions with the parameter positions=refs. A position stands behind the sequence number, and one that belongs to no
// message comes as the event phx_position:
//
//     <  [null, "s:7:AAAAAAAAAAE.41", "room:lobby", "new_msg", {"body": "hi", …}]
//
// The client remembers the newest position of each topic, and names it in a sixth element when it joins again. If the
// session is gone by then, the new channel can send what was missed all the same, behind its reply:
//
//     >  ["9", "9", "room:lobby", "phx_join", {"name": "Ada"}, {"after": "AAAAAAAAAAE.41"}]
//
// Three layers, bottom up: a transport carries text; a Socket keeps one transport connected and dispatches messages;
// a Channel is one topic.

const HEARTBEAT_MS = 5_000; // phoenix.js uses 30 s; this page shows the round trip, so it measures more often
const TIMEOUT_MS = 10_000; // for opening a connection, and for a reply
const SHORT_LIVED_MS = 3_000; // a WebSocket that lives for less may have been cut by a hostile network

// Exponential backoff with jitter, so that clients cut off by one restart do not return all at once.
const backoff = (failures) => Math.min(250 * 2 ** failures, 8_000) * (0.5 + Math.random() / 2);

// 128 random bits: unguessable and unique.
export const randomId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

// ---------------------------------------------------------------------------------------------------------------
// Transports. All share one interface: new Transport(path, params), onopen, onmessage(data), onclose(why), send(text),
// sendLast(text) for a page that is being closed, close(), and vanish(), which stops without notifying the server, as
// when a network is lost. `params` is called for the connect parameters; `data` is a string or, for a binary message,
// an ArrayBuffer.

// GET /socket/websocket?vsn=2.0.0&… with an upgrade; after that, each message is a text frame.
class WebSocketTransport {
  constructor(path, params) {
    const url = new URL(`${path}/websocket?${new URLSearchParams(params())}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.ws = new WebSocket(url);
    this.ws.binaryType = "arraybuffer";
    this.ws.onopen = () => this.onopen();
    this.ws.onmessage = ({ data }) => this.onmessage(data);
    // Browsers do not reveal the reason: a rejected upgrade looks like a network that is down.
    this.ws.onclose = ({ code }) => this.onclose(code === 1006 ? "no connection" : `closed with ${code}`);
  }

  send(text) {
    this.ws.send(text);
  }

  sendLast(text) {
    if (this.ws.readyState === WebSocket.OPEN) this.ws.send(text);
  }

  close() {
    this.ws.close();
  }

  // The socket ignores it from now on. The server notices when the session continues on another connection.
  vanish() {}
}

// Simulates a WebSocket in a network that blocks them.
class BlockedTransport {
  constructor() {
    this.timer = setTimeout(() => this.onclose("WebSocket is blocked"), 100);
  }

  send() {}

  sendLast() {}

  close() {
    clearTimeout(this.timer);
  }
}

// Long poll: the same with plain requests, for networks that block WebSocket.
//
//     >  GET  /socket/longpoll?vsn=2.0.0&…           <  {"status": 410, "token": "A", "messages": []}   a new token
//     >  POST /socket/longpoll?vsn=2.0.0&token=A     <  {"status": 200}                                 messages up
//     >  GET  /socket/longpoll?vsn=2.0.0&token=A     <  {"status": 200, "token": "B", "messages": [text, …]}
//     >  GET  /socket/longpoll?vsn=2.0.0&token=B     <  {"status": 204, "token": "B", "messages": []}   nothing yet
//
// The HTTP status is always 200; the real status is in the body. The server holds a GET until there is a message. The
// token changes with the responses: polling with the newest acknowledges everything before it, and the server resends
// the rest. A message that is not JSON is a binary message in base64.
class LongPollTransport {
  token = null;
  queue = []; // messages for the next POST
  posting = false;
  aborted = new AbortController();

  constructor(path, params) {
    this.path = path;
    this.params = params;
    this.poll();
  }

  async poll() {
    while (!this.aborted.signal.aborted) {
      const response = await this.request("GET");
      if (response.token) this.token = response.token;
      switch (response.status) {
        case 410: // no or unknown token, and here is a new one: join again
          this.onopen();
          break;
        case 200: // messages, each with the content of a WebSocket frame
          response.messages.forEach((text) => this.onmessage(text.startsWith("[") ? text : fromBase64(text)));
          break;
        case 204: // no messages within the poll timeout: poll again
          break;
        default: // 403: rejected, 500: server error, 0: no response
          return this.end(response.status);
      }
    }
  }

  // One POST at a time keeps messages in order. Messages queued meanwhile share the next one, one per line.
  async send(text) {
    this.queue.push(text);
    if (this.posting) return;
    this.posting = true;
    while (this.queue.length > 0 && !this.aborted.signal.aborted) {
      const response = await this.post();
      if (response.status !== 200) return this.end(response.status);
    }
    this.posting = false;
  }

  // A closed page never sees the response to the POST in flight, so the last one does not wait for it.
  sendLast(text) {
    this.queue.push(text);
    this.post();
  }

  post() {
    return this.request("POST", { "content-type": "application/x-ndjson" }, this.queue.splice(0).join("\n"));
  }

  async request(method, headers, body) {
    const query = new URLSearchParams(this.params());
    if (this.token) query.set("token", this.token);
    try {
      // Closing aborts only the poll: a POST in flight should still arrive.
      const options = { method, headers, body, signal: method === "GET" ? this.aborted.signal : undefined };
      // Lets a final message arrive after its page is closed. Browsers allow at most 64 KiB.
      options.keepalive = body?.length < 8_000;
      return await (await fetch(`${this.path}/longpoll?${query}`, options)).json();
    } catch {
      return { status: 0 };
    }
  }

  // No message ends a long poll: the server expires unused tokens.
  close() {
    this.aborted.abort();
  }

  vanish() {
    this.close();
  }

  end(status) {
    const why = { 0: "no connection", 403: "refused" }[status] ?? `closed with ${status}`;
    if (!this.aborted.signal.aborted) this.onclose(why);
  }
}

const OWN_PARAMS = { binary: "base64", positions: "refs" };

const TRANSPORTS = { websocket: WebSocketTransport, longpoll: LongPollTransport };

const fromBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

// Decodes a message from text or from a binary frame. A binary frame has a byte for the kind, a byte for the length of
// each field of this kind, the fields, and the payload. It has no room for a sequence number.
const BINARY_KINDS = [["joinRef", "topic", "event"], ["joinRef", "ref", "topic", "status"], ["topic", "event"]];

function decode(data) {
  if (typeof data === "string") {
    const [joinRef, ref, topic, event, payload] = JSON.parse(data);
    return { joinRef, ref, topic, event, payload };
  }
  const bytes = new Uint8Array(data);
  const fields = BINARY_KINDS[bytes[0]];
  const message = { joinRef: null, ref: null };
  let at = 1 + fields.length;
  fields.forEach((name, i) => {
    const end = at + bytes[1 + i];
    message[name] = new TextDecoder().decode(bytes.subarray(at, end)) || null;
    at = end;
  });
  const payload = data.slice(at);
  if (message.status === undefined) return { ...message, payload };
  return { ...message, event: "phx_reply", payload: { status: message.status, response: payload } };
}

// Lets actions pass after a delay, in order.
class DelayLine {
  #waiting = []; // { due, action }

  pass(ms, action) {
    if (ms === 0 && this.#waiting.length === 0) return action();
    this.#waiting.push({ due: performance.now() + ms, action });
    setTimeout(() => this.#release(), ms);
  }

  #release() {
    const now = performance.now() + 1; // timers may be early by a fraction
    while (this.#waiting[0]?.due <= now) this.#waiting.shift().action();
  }
}

// ---------------------------------------------------------------------------------------------------------------

// Why a push failed. `kind` is "refused" (an error reply, whose reason is the message, and `response` the whole),
// "timeout" (no reply in time) or "lost" (the connection or the channel is gone; the push may or may not have arrived).
export class PushError extends Error {
  constructor(kind, reason, response = null) {
    super(reason);
    this.kind = kind;
    this.response = response;
  }
}

// A session with the server, over a sequence of connections.
export class Socket {
  state = "closed"; // closed, connecting, open, or waiting (for the next attempt)
  offline = false; // stays without a connection
  connections = 0; // the number of connections opened so far
  blocked = false; // simulates a network that blocks WebSocket
  delay = 0; // simulates a slow network: milliseconds that each message takes, in each direction
  problem = ""; // why it is waiting
  rtt = null; // round trip of the last heartbeat, in milliseconds
  onchange = () => {};

  #path;
  #params;
  #session = randomId(); // not stored, so that a duplicated tab gets its own session
  #received = 0; // the number of the last message received
  #transport = null;
  #channels = new Map(); // topic -> Channel
  #pushes = new Map(); // ref -> push without a reply yet
  #ref = 0;
  #up = new DelayLine();
  #down = new DelayLine();
  #failures = 0;
  #openedAt = null; // when the current connection opened
  #fallenBack = false; // on long poll although WebSocket is preferred
  #probe = null; // see #startProbe
  #probes = 0;
  #probeTimer;
  #timer; // for the next step: connect timeout, retry, or heartbeat

  constructor(path, params, preferred = "websocket") {
    this.#path = path;
    this.#params = { vsn: "2.0.0", ...params };
    this.preferred = preferred; // the transport chosen by the user
    this.transportName = preferred; // the transport in use
    // A page that becomes active again skips the rest of its backoff.
    addEventListener("online", () => this.#retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.#retryNow());
  }

  connect() {
    this.transportName = this.#fallenBack ? "longpoll" : this.preferred;
    // Evaluated for every request, so that `received` is current.
    const params = () => ({ ...this.#params, session: this.#session, received: this.#received, ...OWN_PARAMS });
    const transport = this.#newTransport(this.transportName, params);
    // Ignores events of a replaced transport; its messages come again on the next one.
    const current = (handle) => (arg) => this.#transport === transport && handle(arg);
    transport.onopen = current(() => this.#opened());
    const receive = current((data) => this.#receive(decode(data)));
    transport.onmessage = (data) => this.#down.pass(this.delay, () => receive(data));
    transport.onclose = current((why) => this.#lost(why));
    this.#transport = transport;
    this.#openedAt = null;
    this.#schedule(TIMEOUT_MS, () => this.#lost("no response"));
    this.#setState("connecting");
  }

  // Ends the session for good: all channels terminate on the server. For a page that is being closed.
  end() {
    this.#transport?.sendLast(JSON.stringify([null, null, "phoenix", "end_session", {}]));
  }

  // Ends the session and the connection.
  close() {
    this.end();
    this.#channels.clear();
    this.#drop();
    this.#setState("closed");
  }

  // Moves to the other transport within the session. Channels see a lost connection and a new one.
  use(transportName) {
    if (transportName === this.preferred && !this.#fallenBack) return;
    this.preferred = transportName;
    if (this.state !== "closed" && !this.offline) this.#move();
  }

  // For demonstration: loses the connection without the server noticing, as when a phone changes networks.
  cut(forMs) {
    if (this.#transport === null) return;
    this.#transport.vanish();
    this.#transport = null;
    this.#drop();
    this.#schedule(forMs, () => this.connect());
    this.#setState("waiting", "the connection was cut");
  }

  // For demonstration: stays without a connection until it is called again.
  stayOffline(offline) {
    this.offline = offline;
    if (!offline) return this.#retryNow();
    this.cut(0);
    clearTimeout(this.#timer);
    this.#setState("waiting", "offline");
  }

  // For demonstration: the session is gone, as after a restart of the server or, for who is offline, a long time.
  forget() {
    if (this.#transport === null) {
      this.#session = randomId();
      this.#received = 0;
    } else {
      this.end();
      this.cut(500);
    }
  }

  // For demonstration: a slow network.
  slow(ms) {
    this.delay = ms;
    this.onchange();
  }

  // For demonstration: simulates a network that blocks WebSocket, or stops doing so.
  block(blocked) {
    this.blocked = blocked;
    if (blocked && this.transportName === "websocket" && this.#transport) this.#lost("WebSocket is blocked");
    if (!blocked && this.#fallenBack && this.state === "open") {
      this.#probes = 0;
      this.#scheduleProbe();
    }
    this.onchange();
  }

  // Creates the channel of a topic. `payload` is called for the payload of each join.
  channel(topic, payload) {
    const channel = new Channel(this, topic, payload);
    this.#channels.set(topic, channel);
    return channel;
  }

  // Sends a message. `replied`, if given, is called once with (null, response) or (PushError).
  _send(joinRef, topic, event, payload, replied) {
    const ref = String(++this.#ref);
    if (replied) {
      const timer = setTimeout(() => this.#settle(ref, new PushError("timeout", "no reply in time")), TIMEOUT_MS);
      this.#pushes.set(ref, { topic, replied, timer });
    }
    // The ref of a join is also its join_ref.
    const message = [event === "phx_join" ? ref : joinRef, ref, topic, event, payload];
    const after = event === "phx_join" ? this.#channels.get(topic)?.position() : null;
    const transport = this.#transport;
    const text = JSON.stringify(after ? [...message, { after }] : message);
    this.#up.pass(this.delay, () => this.#transport === transport && transport.send(text));
    return ref;
  }

  _forget(channel) {
    if (this.#channels.get(channel.topic) === channel) this.#channels.delete(channel.topic);
    this._abandon(channel.topic);
  }

  // Fails all pushes to `topic` that have no reply yet.
  _abandon(topic, why = "the channel is gone") {
    for (const [ref, push] of this.#pushes) {
      if (push.topic === topic) this.#settle(ref, new PushError("lost", why));
    }
  }

  // Pending pushes keep waiting, since a resumed session can still reply. A heartbeat belongs to its connection.
  #opened() {
    this._abandon("phoenix");
    this.connections += 1;
    this.#openedAt = performance.now();
    this.#setState("open");
    this.#heartbeat();
    this.#channels.forEach((channel) => channel._socketOpened());
    if (this.#fallenBack) this.#scheduleProbe();
  }

  #receive({ joinRef, ref, topic, event, payload }) {
    const { number, position } = this.#marksOf(ref, payload);
    if (number !== null) {
      if (number <= this.#received) return; // a duplicate
      this.#received = number;
    }
    if (position && this.#channels.get(topic)?._moveTo(position) === false) return; // came in an earlier session
    if (event === "phx_reply") {
      const { status, response } = payload;
      if (status === "ok") this.#settle(ref, null, response);
      else this.#settle(ref, new PushError("refused", response.reason ?? JSON.stringify(response), response));
    } else {
      this.#channels.get(topic)?._received(joinRef, event, payload);
    }
  }

  // Number and position stand in place of a null ref. Binary messages have no ref and are counted.
  #marksOf(ref, payload) {
    const [, number, position] = /^(?:s:(\d+)|p)(?::(.+))?$/.exec(ref) ?? [];
    if (number) return { number: Number(number), position };
    return { number: ref === null && payload instanceof ArrayBuffer ? this.#received + 1 : null, position };
  }

  #settle(ref, error, response) {
    const push = this.#pushes.get(ref);
    if (!push) return; // already timed out
    this.#pushes.delete(ref);
    clearTimeout(push.timer);
    push.replied(error, response);
  }

  // Detects a dead connection, keeps proxies from closing an idle one, and measures the round trip.
  #heartbeat() {
    clearTimeout(this.#timer);
    const sent = performance.now();
    this._send(null, "phoenix", "heartbeat", {}, (error) => {
      if (error?.kind === "timeout") return this.#lost("no heartbeat");
      if (error) return;
      this.rtt = performance.now() - sent;
      this.#schedule(HEARTBEAT_MS, () => this.#heartbeat());
      this.onchange();
    });
  }

  #lost(why) {
    const age = this.#openedAt === null ? null : performance.now() - this.#openedAt;
    if (age > SHORT_LIVED_MS) {
      this.#failures = 0;
      if (this.transportName === "websocket") this.#probes = 0;
    }
    // A WebSocket that never opened, or several short-lived ones, suggest that the network blocks them. Try long poll;
    // if that fails too, WebSocket was not the problem.
    this.#fallenBack = this.transportName === "websocket" && (age === null || this.#failures > 1);
    this.#drop();
    this.#schedule(backoff(this.#failures++), () => this.connect());
    this.#setState("waiting", why);
  }

  // Moves to the preferred transport.
  #move() {
    this.#fallenBack = false;
    this.#drop();
    this.connect();
  }

  #drop() {
    const transport = this.#transport;
    this.#transport = null;
    transport?.close();
    this.#probe?.close();
    this.#probe = null;
    clearTimeout(this.#probeTimer);
    clearTimeout(this.#timer);
    this.state = "waiting";
    this.rtt = null;
    this._abandon("phoenix");
    this.#channels.forEach((channel) => channel._socketLost());
  }

  // After a fallback, tests with a separate connection outside the session whether WebSocket works again, while long
  // poll goes on. The probe must get a reply, not just open: some proxies allow the upgrade and block the rest.
  #startProbe() {
    const probe = this.#newTransport("websocket", () => this.#params);
    const current = (handle) => () => this.#probe === probe && handle();
    const failed = current(() => {
      this.#probe = null;
      probe.close();
      this.#scheduleProbe();
    });
    probe.onopen = () => probe.send(JSON.stringify([null, "1", "phoenix", "heartbeat", {}]));
    probe.onmessage = current(() => this.#move());
    probe.onclose = failed;
    this.#probe = probe;
    this.#probeTimer = setTimeout(failed, TIMEOUT_MS);
  }

  // The delay grows with each probe, until a WebSocket has lived for a while.
  #scheduleProbe() {
    clearTimeout(this.#probeTimer);
    this.#probeTimer = setTimeout(() => this.#startProbe(), 4 * backoff(this.#probes++));
  }

  #newTransport(name, params) {
    const Transport = this.blocked && name === "websocket" ? BlockedTransport : TRANSPORTS[name];
    return new Transport(this.#path, params);
  }

  #retryNow() {
    if (this.state !== "waiting" || this.offline) return;
    clearTimeout(this.#timer);
    this.connect();
  }

  #schedule(ms, action) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, ms);
  }

  #setState(state, problem = "") {
    this.state = state;
    this.problem = problem;
    this.onchange();
  }
}

// One topic. From `join` to `leave`, it rejoins after every lost connection and every channel error (`phx_error`).
class Channel {
  state = "closed"; // closed, waiting (for the connection or a retry), joining, or joined
  onjoin = () => {}; // (response) after every join
  onrefused = () => {}; // (PushError) when the server rejects a join; there is no retry
  onchange = () => {};

  #socket;
  #payload;
  #joinRef = null;
  #position = null; // of the newest message, in the history of the topic
  #events = new Map(); // event -> handler
  #failures = 0;
  #timer;

  constructor(socket, topic, payload) {
    this.#socket = socket;
    this.topic = topic;
    this.#payload = payload;
  }

  // The ref of the current join; null before the first.
  joinRef() {
    return this.#joinRef;
  }

  // Where the newest message stands in the history of the topic; null without one.
  position() {
    return this.#position;
  }

  on(event, handler) {
    this.#events.set(event, handler);
    return this;
  }

  join() {
    this.#setState("waiting");
    if (this.#socket.state === "open") this._socketOpened();
  }

  leave() {
    clearTimeout(this.#timer);
    const active = this.state === "joining" || this.state === "joined";
    if (active) this.#socket._send(this.#joinRef, this.topic, "phx_leave", {});
    this.#setState("closed");
    this.#socket._forget(this);
  }

  // Pushes an event and returns a promise of its reply. Rejects with a PushError.
  push(event, payload) {
    return new Promise((resolve, reject) => {
      if (this.state !== "joined") throw new PushError("lost", "not joined");
      this.#socket._send(this.#joinRef, this.topic, event, payload, (error, response) =>
        error ? reject(error) : resolve(response),
      );
    });
  }

  // Pushes an event without expecting a reply. Does nothing unless the channel is joined.
  send(event, payload) {
    if (this.state === "joined") this.#socket._send(this.#joinRef, this.topic, event, payload);
  }

  _socketOpened() {
    if (this.state === "closed") return;
    clearTimeout(this.#timer);
    this.#setState("joining");
    const ref = this.#socket._send(null, this.topic, "phx_join", this.#payload(), (error, response) => {
      if (this.#joinRef !== ref || this.state !== "joining") return; // an older join, or the channel was left
      if (!error) {
        this.#failures = 0;
        if (!response.resumed) this.#socket._abandon(this.topic); // a new channel will not reply to old pushes
        this.#setState("joined");
        this.onjoin(response);
      } else if (error.kind === "refused") {
        this.#setState("closed");
        this.#socket._forget(this);
        this.onrefused(error);
      } else if (error.kind === "timeout") {
        this.#rejoinLater();
      }
    });
    this.#joinRef = ref;
  }

  // Remembers a position. Returns false if it is not a new one: numbers of one epoch grow.
  _moveTo(position) {
    const [epoch, number] = position.split(".");
    const [lastEpoch, last] = (this.#position ?? "").split(".");
    if (epoch === lastEpoch && BigInt(number) <= BigInt(last)) return false;
    this.#position = position;
    return true;
  }

  _socketLost() {
    if (this.state === "closed") return;
    clearTimeout(this.#timer);
    this.#setState("waiting");
  }

  // Broadcasts are encoded once for all members and have a null join_ref. Any other join_ref must be ours.
  _received(joinRef, event, payload) {
    if (joinRef !== null && joinRef !== this.#joinRef) return;
    if (event === "phx_error" || event === "phx_close") this.#rejoinLater();
    else this.#events.get(event)?.(payload);
  }

  // The channel ended on the server, not the connection: pending pushes fail, and the channel rejoins after a delay.
  #rejoinLater() {
    this.#setState("waiting");
    this.#socket._abandon(this.topic);
    this.#timer = setTimeout(() => {
      if (this.#socket.state === "open") this._socketOpened();
    }, backoff(this.#failures++));
  }

  #setState(state) {
    this.state = state;
    this.onchange();
  }
}

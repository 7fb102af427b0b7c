// Phoenix Channels, version 2.0.0 of the protocol, as a browser speaks it: over a WebSocket or by long poll.
// It is meant to be read. For a real application there is the `phoenix` package, which this server speaks as well.
//
// Everything on the wire is a message of five parts, as a JSON array:
//
//     [join_ref, ref, topic, event, payload]
//
//     >  ["1", "1", "room:lobby", "phx_join", {"name": "Ada"}]                  join a topic
//     <  ["1", "1", "room:lobby", "phx_reply", {"status": "ok", "response": {…}}]
//     >  ["1", "2", "room:lobby", "new_msg", {"body": "hi"}]                    push an event to it
//     <  ["1", "2", "room:lobby", "phx_reply", {"status": "ok", "response": {}}]
//     <  [null, null, "room:lobby", "new_msg", {"body": "hi", …}]               a broadcast to all who joined
//     >  [null, "3", "phoenix", "heartbeat", {}]                                are you there?
//     <  [null, "3", "phoenix", "phx_reply", {"status": "ok", "response": {}}]
//
// `ref` is the client's number for a message; the reply carries it back. `join_ref` is the ref of the join, and says
// which stay in the topic a message belongs to: after a second join, what is left of the first is recognised by it.
//
// A session outlives its connections. A client of this server asks for that with three more connect parameters:
//
//     session=ID       its own random id, one for each page load; it names the session on both transports
//     received=N       the number of the last message it has read, 0 at first
//     binary=base64    binary messages over long poll, too: as base64, where a text would be JSON
//
// The server then keeps what it has to say while the client is away, and says it on the next connection, whichever
// transport that uses. It numbers its messages where the ref would be null, so that nothing is heard twice:
//
//     <  [null, "s:7", "room:lobby", "new_msg", {"body": "hi", …}]
//
// After every new connection the client joins its topics again, as always. A channel that is still there is not
// joined anew but answers with what its `resume` says (here `{"resumed": true, …}`), and then all that it had to say
// in between, late replies as well. A session that could not be kept (it was too long, or the server has restarted)
// is an ordinary join. Within a session join_ref is null in what the server sends: the join it belonged to may be over.
//
// Three layers, bottom up: a transport carries text; a Socket keeps one transport alive and hands messages to
// channels; a Channel is one topic.

const HEARTBEAT_MS = 5_000; // phoenix.js asks every 30 s; this page shows the round trip and asks more often
const TIMEOUT_MS = 10_000; // for a connection to open and for a reply to come
const YOUNG_MS = 3_000; // a WebSocket that dies younger than this may be one that the network does not like

// Wait longer after every failure, and not in step with all the others whom the same restart cut off.
const backoff = (failures) => Math.min(250 * 2 ** failures, 8_000) * (0.5 + Math.random() / 2);

// 128 random bits: nobody guesses them, and no two are the same.
export const randomId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

// ---------------------------------------------------------------------------------------------------------------
// Transports. All have the same face: new Transport(path, params), onopen, onmessage(data), onclose(why), send(text),
// close, and forsake: to go away without a word, as a network does that is lost. `params` is called for the connect
// parameters, `data` is a text or, for a binary message, an ArrayBuffer.

// GET /socket/websocket?vsn=2.0.0&… with an upgrade; then one message is one text frame.
class WebSocketTransport {
  constructor(path, params) {
    const url = new URL(`${path}/websocket?${new URLSearchParams(params())}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.ws = new WebSocket(url);
    this.ws.binaryType = "arraybuffer";
    this.ws.onopen = () => this.onopen();
    this.ws.onmessage = ({ data }) => this.onmessage(data);
    // A browser does not tell why: a refused upgrade looks like a network that is down.
    this.ws.onclose = ({ code }) => this.onclose(code === 1006 ? "no connection" : `closed with ${code}`);
  }

  send(text) {
    this.ws.send(text);
  }

  close() {
    this.ws.close();
  }

  // Nobody listens any more, and the server does not know. It will notice when the session goes on elsewhere.
  forsake() {}
}

// What is left of a WebSocket in a network that does not let them through.
class BlockedTransport {
  constructor() {
    this.timer = setTimeout(() => this.onclose("WebSocket is blocked"), 100);
  }

  send() {}

  close() {
    clearTimeout(this.timer);
  }
}

// The same with plain requests, where WebSockets do not get through.
//
//     >  GET  /socket/longpoll?vsn=2.0.0&…           <  {"status": 410, "token": "A", "messages": []}   a new token
//     >  POST /socket/longpoll?vsn=2.0.0&token=A     <  {"status": 200}                                 messages up
//     >  GET  /socket/longpoll?vsn=2.0.0&token=A     <  {"status": 200, "token": "B", "messages": [text, …]}
//     >  GET  /socket/longpoll?vsn=2.0.0&token=B     <  {"status": 204, "token": "B", "messages": []}   nothing yet
//
// The HTTP status is always 200; the one that counts is in the body. A GET waits on the server until there is
// something to say. The token changes with the answers: to ask with the newest tells the server which have arrived,
// and it keeps the others to send them again. A message that is no JSON is a binary one, in base64.
class LongPollTransport {
  token = null;
  waiting = []; // messages for the next POST
  posting = false;
  aborted = new AbortController();

  constructor(path, params) {
    this.path = path;
    this.params = params;
    this.poll();
  }

  async poll() {
    while (!this.aborted.signal.aborted) {
      const answer = await this.request("GET");
      if (answer.token) this.token = answer.token;
      switch (answer.status) {
        case 410: // the server does not know our token, or no longer, and here is a new one: join again
          this.onopen();
          break;
        case 200: // messages, each the text that a WebSocket frame would hold
          answer.messages.forEach((text) => this.onmessage(text.startsWith("[") ? text : fromBase64(text)));
          break;
        case 204: // nothing within the server's window: ask again
          break;
        default: // 403: refused, 500: something broke, 0: no answer at all
          return this.end(answer.status);
      }
    }
  }

  // One POST at a time keeps the order. What comes up meanwhile goes together into the next, a line a message.
  async send(text) {
    this.waiting.push(text);
    if (this.posting) return;
    this.posting = true;
    while (this.waiting.length > 0 && !this.aborted.signal.aborted) {
      const lines = this.waiting.splice(0).join("\n");
      const answer = await this.request("POST", { "content-type": "application/x-ndjson" }, lines);
      if (answer.status !== 200) return this.end(answer.status);
    }
    this.posting = false;
  }

  async request(method, headers, body) {
    const query = new URLSearchParams(this.params());
    if (this.token) query.set("token", this.token);
    try {
      // What is on its way up may arrive; what would come down, nobody reads.
      const options = { method, headers, body, signal: method === "GET" ? this.aborted.signal : undefined };
      // A last word arrives although its page is gone. Browsers do that for at most 64 KiB.
      options.keepalive = body?.length < 8_000;
      return await (await fetch(`${this.path}/longpoll?${query}`, options)).json();
    } catch {
      return { status: 0 };
    }
  }

  // There is no message to end it: the server forgets a token that nobody uses.
  close() {
    this.aborted.abort();
  }

  forsake() {
    this.close();
  }

  end(status) {
    const why = { 0: "no connection", 403: "refused" }[status] ?? `closed with ${status}`;
    if (!this.aborted.signal.aborted) this.onclose(why);
  }
}

const TRANSPORTS = { websocket: WebSocketTransport, longpoll: LongPollTransport };

const fromBase64 = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;

// A message of five parts, from text or from a binary frame: a byte for the kind, a byte for the length of each name
// that this kind has, the names, and the payload. A binary message has no place for a number.
const BINARY_KINDS = [["joinRef", "topic", "event"], ["joinRef", "ref", "topic", "status"], ["topic", "event"]];

function decode(data) {
  if (typeof data === "string") {
    const [joinRef, ref, topic, event, payload] = JSON.parse(data);
    return { joinRef, ref, topic, event, payload };
  }
  const bytes = new Uint8Array(data);
  const names = BINARY_KINDS[bytes[0]];
  const message = { joinRef: null, ref: null };
  let at = 1 + names.length;
  names.forEach((name, i) => {
    const end = at + bytes[1 + i];
    message[name] = new TextDecoder().decode(bytes.subarray(at, end)) || null;
    at = end;
  });
  const payload = data.slice(at);
  if (message.status === undefined) return { ...message, payload };
  return { ...message, event: "phx_reply", payload: { status: message.status, response: payload } };
}

// ---------------------------------------------------------------------------------------------------------------

// Why a push was not answered with ok. `kind`: "refused" (the server's answer, its reason is the message),
// "timeout" (no answer in time) or "lost" (the connection or the channel went away; nobody knows if it arrived).
export class PushError extends Error {
  constructor(kind, reason) {
    super(reason);
    this.kind = kind;
  }
}

// One session with the server, over one connection after the other.
export class Socket {
  state = "closed"; // connecting, open, waiting (for the next attempt)
  connections = 0; // how many have opened
  blocked = false; // the network lets no WebSocket through: for trying out what happens then
  problem = ""; // why it is waiting
  rtt = null; // milliseconds of the last heartbeat
  onchange = () => {};

  #path;
  #params;
  #session = randomId(); // not to be stored: a tab that was duplicated has a session of its own
  #received = 0; // the number of the last message that we have read
  #transport = null;
  #channels = new Map(); // topic -> Channel
  #pushes = new Map(); // ref -> what waits for its reply
  #ref = 0;
  #failures = 0;
  #openedAt = null; // of this connection
  #fallenBack = false; // to long poll, though WebSocket is preferred
  #scout = null; // see #look
  #looks = 0;
  #lookTimer;
  #timer; // of the one thing that is due next: give up connecting, try again, or the next heartbeat

  constructor(path, params, preferred = "websocket") {
    this.#path = path;
    this.#params = { vsn: "2.0.0", ...params };
    this.preferred = preferred; // the transport that was chosen
    this.transportName = preferred; // and the one in use
    // A page that comes back to life need not wait for the rest of its backoff.
    addEventListener("online", () => this.#retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.#retryNow());
  }

  connect() {
    this.transportName = this.#fallenBack ? "longpoll" : this.preferred;
    // Asked anew for every request, so that `received` is always right.
    const params = () => ({ ...this.#params, session: this.#session, received: this.#received, binary: "base64" });
    const transport = this.#newTransport(this.transportName, params);
    // A transport that was given up may still say something. It is not read: the next one says it again.
    const ours = (handle) => (arg) => this.#transport === transport && handle(arg);
    transport.onopen = ours(() => this.#opened());
    transport.onmessage = ours((data) => this.#heard(decode(data)));
    transport.onclose = ours((why) => this.#lost(why));
    this.#transport = transport;
    this.#openedAt = null;
    this.#due(TIMEOUT_MS, () => this.#lost("no answer"));
    this.#became("connecting");
  }

  // Moves to the other transport, within the session. To the channels it is a lost connection and a new one.
  use(transportName) {
    if (transportName === this.preferred && !this.#fallenBack) return;
    this.preferred = transportName;
    if (this.state !== "closed") this.#move();
  }

  // For trying out: the connection is gone and only we know it, as when a phone changes networks.
  cut(forMs) {
    if (this.#transport === null) return;
    this.#transport.forsake();
    this.#transport = null;
    this.#drop();
    this.#due(forMs, () => this.connect());
    this.#became("waiting", "the connection was cut");
  }

  // For trying out: a network that lets no WebSocket through, or does so again.
  block(blocked) {
    this.blocked = blocked;
    if (blocked && this.transportName === "websocket" && this.#transport) this.#lost("WebSocket is blocked");
    if (!blocked && this.#fallenBack && this.state === "open") {
      this.#looks = 0;
      this.#lookLater();
    }
    this.onchange();
  }

  // The channel of a topic; `payload` is called for what to send with every join.
  channel(topic, payload) {
    const channel = new Channel(this, topic, payload);
    this.#channels.set(topic, channel);
    return channel;
  }

  // Sends a message. With `replied`, it is called once: (null, response) or (PushError).
  _send(joinRef, topic, event, payload, replied) {
    const ref = String(++this.#ref);
    if (replied) {
      const timer = setTimeout(() => this.#settle(ref, new PushError("timeout", "no answer in time")), TIMEOUT_MS);
      this.#pushes.set(ref, { topic, replied, timer });
    }
    // The ref of a join is its join_ref too.
    this.#transport.send(JSON.stringify([event === "phx_join" ? ref : joinRef, ref, topic, event, payload]));
    return ref;
  }

  _forget(channel) {
    if (this.#channels.get(channel.topic) === channel) this.#channels.delete(channel.topic);
    this._abandon(channel.topic);
  }

  // No reply will come any more to what was pushed to `topic`.
  _abandon(topic, why = "the channel is gone") {
    for (const [ref, push] of this.#pushes) {
      if (push.topic === topic) this.#settle(ref, new PushError("lost", why));
    }
  }

  // What waits for a reply goes on waiting: in the same session it may still come. A heartbeat is of its connection.
  #opened() {
    this._abandon("phoenix");
    this.connections += 1;
    this.#openedAt = performance.now();
    this.#became("open");
    this.#heartbeat();
    this.#channels.forEach((channel) => channel._socketOpened());
    if (this.#fallenBack) this.#lookLater();
  }

  #heard({ joinRef, ref, topic, event, payload }) {
    const number = this.#numberOf(ref, payload);
    if (number !== null) {
      if (number <= this.#received) return; // the same again
      this.#received = number;
    }
    if (event === "phx_reply") {
      const { status, response } = payload;
      if (status === "ok") this.#settle(ref, null, response);
      else this.#settle(ref, new PushError("refused", response.reason ?? JSON.stringify(response)));
    } else {
      this.#channels.get(topic)?._received(joinRef, event, payload);
    }
  }

  // The number is where a ref would be null. Binary messages have none and count on.
  #numberOf(ref, payload) {
    const numbered = /^s:(\d+)$/.exec(ref);
    if (numbered) return Number(numbered[1]);
    return ref === null && payload instanceof ArrayBuffer ? this.#received + 1 : null;
  }

  #settle(ref, error, response) {
    const push = this.#pushes.get(ref);
    if (!push) return; // timed out before
    this.#pushes.delete(ref);
    clearTimeout(push.timer);
    push.replied(error, response);
  }

  // Tells a dead connection from a quiet one, keeps proxies from closing it, and measures the round trip.
  #heartbeat() {
    clearTimeout(this.#timer);
    const sent = performance.now();
    this._send(null, "phoenix", "heartbeat", {}, (error) => {
      if (error?.kind === "timeout") return this.#lost("no heartbeat");
      if (error) return;
      this.rtt = performance.now() - sent;
      this.#due(HEARTBEAT_MS, () => this.#heartbeat());
      this.onchange();
    });
  }

  #lost(why) {
    const age = this.#openedAt === null ? null : performance.now() - this.#openedAt;
    if (age > YOUNG_MS) {
      this.#failures = 0;
      if (this.transportName === "websocket") this.#looks = 0;
    }
    // A WebSocket that never opened, or several that died young: perhaps they do not get through. Long poll shows it,
    // and if that does not work either, the WebSocket was not to blame.
    this.#fallenBack = this.transportName === "websocket" && (age === null || this.#failures > 1);
    this.#drop();
    this.#due(backoff(this.#failures++), () => this.connect());
    this.#became("waiting", why);
  }

  // To the preferred transport.
  #move() {
    this.#fallenBack = false;
    this.#drop();
    this.connect();
  }

  #drop() {
    const transport = this.#transport;
    this.#transport = null;
    transport?.close();
    this.#scout?.close();
    this.#scout = null;
    clearTimeout(this.#lookTimer);
    clearTimeout(this.#timer);
    this.state = "waiting";
    this.rtt = null;
    this._abandon("phoenix");
    this.#channels.forEach((channel) => channel._socketLost());
  }

  // After a fallback: is WebSocket possible again? A scout of its own finds out, outside the session, so that long
  // poll goes on until there is something better. It must be answered, not only opened: some proxies stop at that.
  #look() {
    const scout = this.#newTransport("websocket", () => this.#params);
    const ours = (handle) => () => this.#scout === scout && handle();
    const failed = ours(() => {
      this.#scout = null;
      scout.close();
      this.#lookLater();
    });
    scout.onopen = () => scout.send(JSON.stringify([null, "1", "phoenix", "heartbeat", {}]));
    scout.onmessage = ours(() => this.#move());
    scout.onclose = failed;
    this.#scout = scout;
    this.#lookTimer = setTimeout(failed, TIMEOUT_MS);
  }

  // Every look waits longer than the one before, until a WebSocket has lived for a while.
  #lookLater() {
    clearTimeout(this.#lookTimer);
    this.#lookTimer = setTimeout(() => this.#look(), 4 * backoff(this.#looks++));
  }

  #newTransport(name, params) {
    const Transport = this.blocked && name === "websocket" ? BlockedTransport : TRANSPORTS[name];
    return new Transport(this.#path, params);
  }

  #retryNow() {
    if (this.state !== "waiting") return;
    clearTimeout(this.#timer);
    this.connect();
  }

  #due(ms, what) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(what, ms);
  }

  #became(state, problem = "") {
    this.state = state;
    this.problem = problem;
    this.onchange();
  }
}

// One topic. From `join` to `leave` it is joined whenever it can be: again after every lost connection, and after
// an error on the server (`phx_error`).
class Channel {
  state = "closed"; // waiting (for the connection, or to try again), joining, joined
  onjoin = () => {}; // (response) after every join
  onrefused = () => {}; // (PushError) the server's no to a join; it is not tried again
  onchange = () => {};

  #socket;
  #payload;
  #joinRef = null;
  #events = new Map(); // event -> handler
  #failures = 0;
  #timer;

  constructor(socket, topic, payload) {
    this.#socket = socket;
    this.topic = topic;
    this.#payload = payload;
  }

  // Which stay in the topic this is; null before the first.
  joinRef() {
    return this.#joinRef;
  }

  on(event, handler) {
    this.#events.set(event, handler);
    return this;
  }

  join() {
    this.#became("waiting");
    if (this.#socket.state === "open") this._socketOpened();
  }

  leave() {
    clearTimeout(this.#timer);
    const known = this.state === "joining" || this.state === "joined";
    if (known) this.#socket._send(this.#joinRef, this.topic, "phx_leave", {});
    this.#became("closed");
    this.#socket._forget(this);
  }

  // Pushes an event and promises its reply. Rejects with a PushError.
  push(event, payload) {
    return new Promise((resolve, reject) => {
      if (this.state !== "joined") throw new PushError("lost", "not joined");
      this.#socket._send(this.#joinRef, this.topic, event, payload, (error, response) =>
        error ? reject(error) : resolve(response),
      );
    });
  }

  // Pushes an event to which no reply is expected, and which nobody misses if we are not joined.
  send(event, payload) {
    if (this.state === "joined") this.#socket._send(this.#joinRef, this.topic, event, payload);
  }

  _socketOpened() {
    if (this.state === "closed") return;
    clearTimeout(this.#timer);
    this.#became("joining");
    const ref = this.#socket._send(null, this.topic, "phx_join", this.#payload(), (error, response) => {
      if (this.#joinRef !== ref || this.state !== "joining") return; // an older join, or we have left
      if (!error) {
        this.#failures = 0;
        if (!response.resumed) this.#socket._abandon(this.topic); // it is a new channel: it owes no replies
        this.#became("joined");
        this.onjoin(response);
      } else if (error.kind === "refused") {
        this.#became("closed");
        this.#socket._forget(this);
        this.onrefused(error);
      } else if (error.kind === "timeout") {
        this.#again();
      }
    });
    this.#joinRef = ref;
  }

  _socketLost() {
    if (this.state === "closed") return;
    clearTimeout(this.#timer);
    this.#became("waiting");
  }

  // A broadcast is encoded once for everybody and carries no join_ref. Anything else must carry ours.
  _received(joinRef, event, payload) {
    if (joinRef !== null && joinRef !== this.#joinRef) return;
    if (event === "phx_error" || event === "phx_close") this.#again();
    else this.#events.get(event)?.(payload);
  }

  // The channel on the server has ended, not the connection: no reply will come, and after a while we join again.
  #again() {
    this.#became("waiting");
    this.#socket._abandon(this.topic);
    this.#timer = setTimeout(() => {
      if (this.#socket.state === "open") this._socketOpened();
    }, backoff(this.#failures++));
  }

  #became(state) {
    this.state = state;
    this.onchange();
  }
}

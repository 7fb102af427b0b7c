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
// Three layers, bottom up: a transport carries text; a Socket keeps one transport alive and hands messages to
// channels; a Channel is one topic.

const HEARTBEAT_MS = 5_000; // phoenix.js asks every 30 s; this page shows the round trip and asks more often
const TIMEOUT_MS = 10_000; // for a connection to open and for a reply to come

// Wait longer after every failure, and not in step with all the others whom the same restart cut off.
const backoff = (failures) => Math.min(250 * 2 ** failures, 8_000) * (0.5 + Math.random() / 2);

// ---------------------------------------------------------------------------------------------------------------
// Transports. All have the same face: new Transport(path, params), onopen, onmessage(text), onclose(why), send, close.

// GET /socket/websocket?vsn=2.0.0&… with an upgrade; then one message is one text frame.
class WebSocketTransport {
  constructor(path, params) {
    const url = new URL(`${path}/websocket?${new URLSearchParams(params)}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.ws = new WebSocket(url);
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
}

// The same with plain requests, where WebSockets do not get through.
//
//     >  GET  /socket/longpoll?vsn=2.0.0&…           <  {"status": 410, "token": "A", "messages": []}   a new session
//     >  POST /socket/longpoll?vsn=2.0.0&token=A     <  {"status": 200}                                 messages up
//     >  GET  /socket/longpoll?vsn=2.0.0&token=A     <  {"status": 200, "token": "B", "messages": [text, …]}
//     >  GET  /socket/longpoll?vsn=2.0.0&token=B     <  {"status": 204, "token": "B", "messages": []}   nothing yet
//
// The HTTP status is always 200; the one that counts is in the body. A GET waits on the server until there is
// something to say. The token changes with the answers: to ask with the newest tells the server which have arrived,
// and it keeps the others to send them again.
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
        case 410: // the server does not know our session, or no longer, and has begun a new one: join again
          this.onopen();
          break;
        case 200: // messages, each the text that a WebSocket frame would hold
          answer.messages.forEach((text) => this.onmessage(text));
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
    while (this.waiting.length > 0) {
      const lines = this.waiting.splice(0).join("\n");
      const answer = await this.request("POST", { "content-type": "application/x-ndjson" }, lines);
      if (answer.status !== 200) return this.end(answer.status);
    }
    this.posting = false;
  }

  async request(method, headers, body) {
    const query = new URLSearchParams(this.token ? { ...this.params, token: this.token } : this.params);
    try {
      const options = { method, headers, body, signal: this.aborted.signal };
      return await (await fetch(`${this.path}/longpoll?${query}`, options)).json();
    } catch {
      return { status: 0 };
    }
  }

  // There is no message to end a session: the server forgets one that nobody polls.
  close() {
    this.aborted.abort();
  }

  end(status) {
    const why = { 0: "no connection", 403: "refused" }[status] ?? `closed with ${status}`;
    if (!this.aborted.signal.aborted) this.onclose(why);
  }
}

const TRANSPORTS = { websocket: WebSocketTransport, longpoll: LongPollTransport };

// ---------------------------------------------------------------------------------------------------------------

// Why a push was not answered with ok. `kind`: "refused" (the server's answer, its reason is the message),
// "timeout" (no answer in time) or "lost" (the connection or the channel went away; nobody knows if it arrived).
export class PushError extends Error {
  constructor(kind, reason) {
    super(reason);
    this.kind = kind;
  }
}

// One connection to the server, made again whenever it is lost.
export class Socket {
  state = "closed"; // connecting, open, waiting (for the next attempt)
  problem = ""; // why it is waiting
  rtt = null; // milliseconds of the last heartbeat
  onchange = () => {};

  #path;
  #params;
  #transport = null;
  #channels = new Map(); // topic -> Channel
  #pushes = new Map(); // ref -> what waits for its reply
  #ref = 0;
  #failures = 0;
  #timer; // of the one thing that is due next: give up connecting, try again, or the next heartbeat

  constructor(path, params, transport = "websocket") {
    this.#path = path;
    this.#params = { vsn: "2.0.0", ...params };
    this.transportName = transport;
    // A page that comes back to life need not wait for the rest of its backoff.
    addEventListener("online", () => this.#retryNow());
    document.addEventListener("visibilitychange", () => document.hidden || this.#retryNow());
  }

  connect() {
    const transport = new TRANSPORTS[this.transportName](this.#path, this.#params);
    // A transport that was given up may still say something; by then it is not ours.
    const ours = (handle) => (arg) => this.#transport === transport && handle(arg);
    transport.onopen = ours(() => this.#opened());
    transport.onmessage = ours((text) => this.#received(JSON.parse(text)));
    transport.onclose = ours((why) => this.#lost(why));
    this.#transport = transport;
    this.#due(TIMEOUT_MS, () => this.#lost("no answer"));
    this.#became("connecting");
  }

  // Moves to the other transport. To the channels it is a lost connection and a new one.
  use(transportName) {
    if (transportName === this.transportName) return;
    this.transportName = transportName;
    if (this.state === "closed") return;
    this.#drop("the transport is changing");
    this.connect();
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

  // No reply will come any more to what was pushed to `topic` (without one: to anything).
  _abandon(topic, why = "the channel is gone") {
    for (const [ref, push] of this.#pushes) {
      if (topic === undefined || push.topic === topic) this.#settle(ref, new PushError("lost", why));
    }
  }

  #opened() {
    this.#failures = 0;
    this._abandon(undefined, "the session was lost"); // a long poll can open twice: see 410
    this.#became("open");
    this.#heartbeat();
    this.#channels.forEach((channel) => channel._socketOpened());
  }

  #received([joinRef, ref, topic, event, payload]) {
    if (event === "phx_reply") {
      const { status, response } = payload;
      if (status === "ok") this.#settle(ref, null, response);
      else this.#settle(ref, new PushError("refused", response.reason ?? JSON.stringify(response)));
    } else {
      this.#channels.get(topic)?._received(joinRef, event, payload);
    }
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
    this.#drop(why);
    this.#due(backoff(this.#failures++), () => this.connect());
    this.#became("waiting", why);
  }

  #drop(why) {
    const transport = this.#transport;
    this.#transport = null;
    transport?.close();
    clearTimeout(this.#timer);
    this.state = "waiting";
    this.rtt = null;
    this._abandon(undefined, why);
    this.#channels.forEach((channel) => channel._socketLost());
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
    this.#socket._abandon(this.topic);
    this.#became("joining");
    const ref = this.#socket._send(null, this.topic, "phx_join", this.#payload(), (error, response) => {
      if (this.#joinRef !== ref || this.state !== "joining") return; // an older join, or we have left
      if (!error) {
        this.#failures = 0;
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

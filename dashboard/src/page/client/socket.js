// A browser client of Phoenix Channels over WebSocket and long poll, with resumable sessions.
// It is written to be read; real applications use the `phoenix` package, which works with this server too.
//
// Three layers, bottom up: a transport (transports.js) carries messages (serializer.js); a Socket keeps one transport connected
// and dispatches messages; a Channel (channel.js) is one topic.
//
// A resumable session outlives its connections. A client of this server requests one with three connect parameters:
//
//     session=ID       a random id, one per page load, that names the session on both transports
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

import { Channel, PushError, backoff } from "./channel.js";
import { BlockedTransport, DelayLine } from "./faults.js";
import { decode } from "./serializer.js";
import { LongPollTransport, WebSocketTransport } from "./transports.js";

const HEARTBEAT_MS = 5_000; // phoenix.js uses 30 s; this page shows the round trip, so it measures more often
const TIMEOUT_MS = 10_000; // for opening a connection, and for a reply
const SHORT_LIVED_MS = 3_000; // a WebSocket that lives for less may have been cut by a hostile network

const OWN_PARAMS = { binary: "base64", positions: "refs" };

const TRANSPORTS = { websocket: WebSocketTransport, longpoll: LongPollTransport };

// 128 random bits: unguessable and unique.
export const randomId = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

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
  #closed = new AbortController();
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
    const { signal } = this.#closed;
    addEventListener("online", () => this.#retryNow(), { signal });
    document.addEventListener("visibilitychange", () => document.hidden || this.#retryNow(), { signal });
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

  // Ends the session and the connection, for good.
  close() {
    this.#closed.abort();
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

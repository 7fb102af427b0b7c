// The pushes of a phoenix.js `Socket` that its server may not have handled. They are kept until they are answered or
// the server reports that it has handled them, and sent again, with their refs, if it has not.
//
// A session that tracks pushes replies `{resumed, refs}` under the ref `handled` on each new connection, before the
// reply to any join, and whenever it is asked: `refs` are ranges of the refs that it will not handle again.

const HANDLED = "handled"; // event and ref
const MAX_PUSHES = 1024;
const MAX_BYTES = 2 ** 20; // no more than fits into a single POST
const ASK_AFTER_MS = 5_000;

export class KeptPushes {
  #socket;
  #options;
  #kept = new Map(); // ref -> push, in the order in which they were first sent
  #bytes = 0;
  #known = null; // the connection whose session is known
  #isTracked = false; // whether that session tracks pushes
  #joinedAs = null; // the ref of the last join that it has answered
  #askTimer = null;
  #isAsked = false;
  #unsent = []; // to be reported
  #onOtherSession;

  /** `onOtherSession` is called when a connection has a session of its own, which ends with it, and not that of the ones before. */
  constructor(socket, options, onOtherSession) {
    this.#socket = socket;
    this.#options = options;
    this.#onOtherSession = onOtherSession;
    for (const channel of socket.channels) this.#watch(channel);
    const { channel } = socket;
    socket.channel = (...args) => this.#watch(channel.apply(socket, args));
  }

  /** Whether the session of this connection tracks pushes: what is lost with the connection is sent again. */
  areTracked() {
    return this.#isTracked && this.#socket.conn === this.#known;
  }

  /** Learns when pushes time out, which they may do before they are sent. */
  #watch(channel) {
    const watched = (push) => push.receive("timeout", () => this.#timedOut(channel, push));
    const { push } = channel;
    channel.push = (...args) => watched(push.apply(channel, args));
    channel.pushBuffer.forEach(watched);
    return channel;
  }

  #timedOut(channel, { ref, sent, event, payload }) {
    const kept = this.#kept.get(ref);
    if (kept) {
      kept.isLate = true;
      // If it was sent, nobody knows yet whether it has arrived.
      if (kept.isUnhandled) this.#decide(kept, "timeout");
    } else if (!sent) {
      this.#report({ topic: channel.topic, event, payload: payload(), ref }, "timeout");
    }
  }

  /** Keeps a push that is about to be sent. */
  keep(data, encoded) {
    const { topic, event, payload, ref, join_ref: joinRef } = data;
    const { conn, channels } = this.#socket;
    if (!this.areTracked() || event.startsWith("phx_")) return;
    const channel = channels.find((it) => it.topic === topic && it.joinRef() === joinRef);
    if (!channel) return;
    const bytes = sizeInPost(encoded);
    this.#kept.set(ref, { topic, event, payload, ref, channel, conn, joinRef, encoded, bytes, sentAt: Date.now() });
    this.#bytes += bytes;
    for (const oldest of this.#kept.values()) {
      const isTooMuch = this.#kept.size > MAX_PUSHES || this.#bytes > MAX_BYTES;
      if (!isTooMuch || oldest.ref === ref) break;
      this.#giveUp(oldest, "overflow");
    }
    this.#askTimer ??= this.#scheduleAsk();
    if (this.#kept.size > MAX_PUSHES / 2 || this.#bytes > MAX_BYTES / 2) this.#ask();
  }

  #remove({ ref, bytes }) {
    if (this.#kept.delete(ref)) this.#bytes -= bytes;
  }

  #scheduleAsk() {
    const timer = setTimeout(() => {
      const [oldest] = this.#kept.values();
      this.#askTimer = oldest ? this.#scheduleAsk() : null;
      if (oldest && Date.now() - oldest.sentAt >= ASK_AFTER_MS / 2) this.#ask();
    }, ASK_AFTER_MS);
    timer.unref?.(); // keeps no process of Node alive
    return timer;
  }

  /** Asks what was handled: pushes without a reply prove nothing. */
  #ask() {
    if (!this.areTracked() || !this.#socket.isConnected() || this.#isAsked) return;
    this.#isAsked = true;
    this.#socket.push({ topic: "phoenix", event: HANDLED, payload: {}, ref: HANDLED });
  }

  /** Looks at a message before phoenix.js does. Returns whether it is for this module alone. */
  receive({ topic, event, payload, ref }) {
    if (event !== "phx_reply") return false;
    if (topic === "phoenix" && ref === HANDLED) {
      if (payload.status === "ok") this.#handled(payload.response);
      return true;
    }
    const kept = this.#kept.get(ref);
    if (kept) this.#remove(kept);
    const channel = this.#socket.channels.find((it) => it.topic === topic && it.joinRef() === ref);
    if (channel && payload.status === "ok") this.#joined(channel);
    return false;
  }

  #handled({ resumed, refs }) {
    const { conn } = this.#socket;
    this.#known = conn;
    this.#isTracked = true;
    this.#isAsked = false;
    const isHandled = ({ ref }) => refs.some(([first, last]) => first <= ref && ref <= last);
    // It may be another session: one that was begun without this client's hearing of it, or an older one.
    if (!resumed || (this.#joinedAs && !isHandled({ ref: this.#joinedAs }))) {
      this.#joinedAs = null;
      return this.#loseSession();
    }
    for (const push of this.#kept.values()) {
      if (isHandled(push)) this.#remove(push);
      else if (push.conn !== conn) this.#missed(push);
    }
  }

  /** The session has not handled a push of an earlier connection. */
  #missed(push) {
    push.isUnhandled = true;
    if (!this.#socket.channels.includes(push.channel) || push.channel.state === "leaving") this.#giveUp(push, "left");
    else if (push.isLate) this.#decide(push, "timeout");
  }

  /** Nobody knows what of the earlier session was handled. */
  #loseSession() {
    for (const push of this.#kept.values()) this.#decide(push, "session");
  }

  /** The server has joined the channel, and phoenix.js is about to send what has waited for it. */
  #joined(channel) {
    const { conn } = this.#socket;
    if (conn !== this.#known) {
      if (this.#isTracked) this.#onOtherSession();
      this.#known = conn;
      this.#isTracked = false; // it would have said so before
      this.#loseSession();
    }
    const joinRef = channel.joinRef();
    this.#joinedAs = this.#isTracked ? joinRef : null;
    for (const push of this.#kept.values()) {
      if (push.channel !== channel || push.joinRef === joinRef || !canCarry(conn, push.encoded)) continue;
      if (push.isLate && !this.#decide(push, "timeout")) continue;
      push.isUnhandled = false;
      push.encoded = withJoinRef(push.encoded, joinRef);
      Object.assign(push, { conn, joinRef, sentAt: Date.now() });
      conn.send(push.encoded);
      if (!this.#isTracked) this.#remove(push);
    }
  }

  /** Gives a push up unless the application wants it to be sent again. Returns whether it does. */
  #decide(push, reason) {
    if (push.wanted === reason || this.#isWanted(push, reason)) {
      push.wanted = reason;
      return true;
    }
    this.#giveUp(push, reason);
    return false;
  }

  #isWanted({ topic, event, payload, ref }, reason) {
    try {
      return this.#options.sendAgain?.({ topic, event, payload, ref, reason }) ?? false;
    } catch (error) {
      queueMicrotask(() => {
        throw error; // the application's, and not to be mistaken for one of the socket
      });
      return false;
    }
  }

  #giveUp(push, reason) {
    this.#remove(push);
    this.#report(push, reason);
  }

  #report({ topic, event, payload, ref }, reason) {
    this.#unsent.push({ topic, event, payload, ref, reason });
    if (this.#unsent.length > 1) return;
    queueMicrotask(() => {
      const unsent = this.#unsent;
      this.#unsent = [];
      this.#options.onUnsent?.(unsent);
    });
  }
}

/** The long poll of phoenix.js before 1.7 has no form for binary messages. */
const canCarry = (conn, encoded) => typeof encoded === "string" || !conn.endpointURL || conn.batchBuffer !== undefined;

/** The bytes that a message takes in the body of a POST. */
const sizeInPost = (encoded) =>
  typeof encoded === "string" ? new TextEncoder().encode(encoded).length : Math.ceil((encoded.byteLength * 4) / 3);

/** Replaces the join_ref of an encoded push: in an array, an object, or a binary frame. */
function withJoinRef(encoded, joinRef) {
  if (typeof encoded !== "string") return binaryWithJoinRef(new Uint8Array(encoded), joinRef);
  if (encoded.startsWith("[")) return encoded.replace(/^\[(null|"[^"]*")/, `["${joinRef}"`);
  return JSON.stringify({ ...JSON.parse(encoded), join_ref: joinRef });
}

/** A frame begins with its kind and the sizes of four fields, of which the join_ref is the first. */
function binaryWithJoinRef(frame, joinRef) {
  const HEAD = 5;
  const field = new TextEncoder().encode(joinRef);
  const rest = frame.subarray(HEAD + frame[1]);
  const changed = new Uint8Array(HEAD + field.length + rest.length);
  changed.set(frame.subarray(0, HEAD));
  changed[1] = field.length;
  changed.set(field, HEAD);
  changed.set(rest, HEAD + field.length);
  return changed.buffer;
}

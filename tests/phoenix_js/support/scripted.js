// A scripted server for tests of client behaviour: it accepts every connection, records its parameters, acknowledges
// every message, and sends what the test tells it to. It can lose messages and their replies.
import { once } from "node:events";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const POLL_TIMEOUT_MS = 200;

export async function startScripted() {
  const http = createServer((request, response) => longPoll(request, response));
  const webSockets = new WebSocketServer({ noServer: true });
  const polls = new Map(); // token -> messages for the next poll, and the pending poll
  let arrivedAt = 0;
  const sessions = new Map(); // session id -> refs that were handled
  const script = {
    /** The parameters of each connection that was accepted, as `{ transport, params }`. */
    connects: [],
    /** The messages that arrived, as `{ transport, message }`. */
    messages: [],
    /** `accept`, `refuse`, or the lifetime of a WebSocket in milliseconds. */
    upgrades: "accept",
    /** Whether messages on WebSockets go unanswered. */
    mute: false,
    /** A promise that POSTs wait for. */
    uploads: Promise.resolve(),
    /** Whether sessions track pushes. */
    tracks: false,
    /** Which messages are lost, and which are recorded without a reply. */
    loses: () => false,
    ignores: () => false,
    /** Whether nothing has arrived for a moment. */
    isQuiet: () => Date.now() - arrivedAt > 30,
    /** Forgets all sessions. */
    forget: () => sessions.clear(),
    /** Puts other sessions in their place, of which the clients have not heard. */
    replace: () => sessions.forEach((_, id) => sessions.set(id, [])),
    send,
    cut,
    stop,
  };

  http.on("upgrade", (request, socket, head) => {
    socket.on("error", () => {}); // a client may reset a connection that was refused
    if (script.upgrades === "refuse") return socket.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    webSockets.handleUpgrade(request, socket, head, (client) => {
      const session = connected("websocket", new URL(request.url, "http://host").searchParams);
      session.greet((message) => client.send(message));
      client.on("message", (data, binary) => {
        const reply = arrived("websocket", session, binary ? data : data.toString());
        if (reply && !script.mute) client.send(reply);
      });
      if (script.upgrades > 0) setTimeout(() => client.terminate(), script.upgrades);
    });
  });

  async function longPoll(request, response) {
    const { searchParams } = new URL(request.url, "http://host");
    const end = (body) => response.end(JSON.stringify(body));
    const known = searchParams.getAll("token").at(-1); // the application may have a parameter of that name
    if (request.method === "POST") {
      const chunks = await request.toArray().catch(() => null);
      if (!chunks) return; // the connection was cut
      await script.uploads;
      const poll = polls.get(known);
      for (const line of Buffer.concat(chunks).toString().split("\n")) {
        const isText = /^[[{]/.test(line);
        const reply = poll && arrived("longpoll", poll.session, isText ? line : Buffer.from(line, "base64"));
        if (reply) enqueue(poll, reply);
      }
      return end({ status: 200 });
    }
    if (!polls.has(known) && known?.startsWith("t-")) return end({ status: 500 });
    if (!polls.has(known)) {
      const token = `t-${script.connects.length}`;
      const session = connected("longpoll", searchParams);
      const poll = { token, session, messages: [], flush: null };
      polls.set(token, poll);
      session.greet((message) => enqueue(poll, message));
      return end({ status: 410, token, messages: [] });
    }
    const poll = polls.get(known);
    poll.flush = () => {
      clearTimeout(timer);
      poll.flush = null;
      end({ status: poll.messages.length ? 200 : 204, token: poll.token, messages: poll.messages.splice(0) });
    };
    const timer = setTimeout(poll.flush, poll.messages.length ? 0 : POLL_TIMEOUT_MS);
  }

  function connected(transport, params) {
    script.connects.push({ transport, params: Object.fromEntries(params) });
    const id = params.get("session");
    const resumed = sessions.has(id);
    if (!resumed) sessions.set(id, []);
    const refs = sessions.get(id);
    const report = (resumed) => {
      const response = { resumed, refs: refs.map((ref) => [ref, ref]) };
      return JSON.stringify([null, "handled", "phoenix", "phx_reply", { status: "ok", response }]);
    };
    const greet = (send) => script.tracks && params.get("pushes") === "once" && send(report(resumed));
    return { refs, report: () => report(true), greet };
  }

  /** Records a message. Returns the reply to it. */
  function arrived(transport, session, data) {
    const message = typeof data === "string" ? parse(data) : parseBinary(data);
    const [joinRef, ref, topic, event] = message;
    arrivedAt = Date.now();
    if (script.loses(message)) return null;
    script.messages.push({ transport, message });
    if (topic === "phoenix" && event === "handled") return session.report();
    session.refs.push(Number(ref));
    return script.ignores(message) ? null : answer(data, joinRef, ref, topic);
  }

  function parse(text) {
    const message = JSON.parse(text);
    if (Array.isArray(message)) return message;
    const { join_ref, ref, topic, event, payload, after } = message;
    return [join_ref, ref, topic, event, payload, ...(after ? [{ after }] : [])];
  }

  function parseBinary(frame) {
    let at = 5;
    const fields = [1, 2, 3, 4].map((index) => frame.subarray(at, (at += frame[index])).toString());
    return [...fields, frame.subarray(at).toString()];
  }

  function answer(data, joinRef, ref, topic) {
    const payload = { status: "ok", response: {} };
    if (data[0] === "{") return JSON.stringify({ topic, event: "phx_reply", payload, ref });
    return JSON.stringify([joinRef, ref, topic, "phx_reply", payload]);
  }

  function enqueue(poll, message) {
    if (!poll) return;
    poll.messages.push(message);
    poll.flush?.();
  }

  /** Sends text or bytes to every client. A long poll carries bytes as base64. */
  function send(message) {
    const bytes = typeof message !== "string";
    for (const client of webSockets.clients) client.send(message);
    for (const poll of polls.values()) enqueue(poll, bytes ? Buffer.from(message).toString("base64") : message);
  }

  /** Cuts every connection. */
  function cut() {
    for (const client of webSockets.clients) client.terminate();
    polls.clear();
    http.closeAllConnections();
  }

  function stop() {
    http.close();
    cut();
  }

  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  return Object.assign(script, { host: `127.0.0.1:${http.address().port}` });
}

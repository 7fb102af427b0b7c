// A scripted server for tests of client behaviour: it accepts every connection, records its parameters, acknowledges
// every message, and sends what the test tells it to.
import { once } from "node:events";
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const POLL_TIMEOUT_MS = 200;

export async function startScripted() {
  const http = createServer((request, response) => longPoll(request, response));
  const webSockets = new WebSocketServer({ noServer: true });
  const polls = new Map(); // token -> messages for the next poll, and the pending poll
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
    send,
    cut,
    stop,
  };

  http.on("upgrade", (request, socket, head) => {
    socket.on("error", () => {}); // a client may reset a connection that was refused
    if (script.upgrades === "refuse") return socket.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    webSockets.handleUpgrade(request, socket, head, (client) => {
      connected("websocket", new URL(request.url, "http://host").searchParams);
      client.on("message", (data, binary) => {
        if (binary) return;
        arrived("websocket", data.toString());
        if (!script.mute) client.send(answer(data.toString()));
      });
      if (script.upgrades > 0) setTimeout(() => client.terminate(), script.upgrades);
    });
  });

  async function longPoll(request, response) {
    const { searchParams } = new URL(request.url, "http://host");
    const end = (body) => response.end(JSON.stringify(body));
    const known = searchParams.getAll("token").at(-1); // the application may have a parameter of that name
    if (request.method === "POST") {
      const chunks = await request.toArray();
      await script.uploads;
      for (const line of Buffer.concat(chunks).toString().split("\n")) {
        arrived("longpoll", line);
        enqueue(polls.get(known), answer(line));
      }
      return end({ status: 200 });
    }
    if (!polls.has(known) && known?.startsWith("t-")) return end({ status: 500 });
    if (!polls.has(known)) {
      const token = `t-${script.connects.length}`;
      polls.set(token, { token, messages: [], flush: null });
      connected("longpoll", searchParams);
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
  }

  function arrived(transport, text) {
    script.messages.push({ transport, message: JSON.parse(text) });
  }

  function answer(text) {
    const [joinRef, ref, topic] = JSON.parse(text);
    return JSON.stringify([joinRef, ref, topic, "phx_reply", { status: "ok", response: {} }]);
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

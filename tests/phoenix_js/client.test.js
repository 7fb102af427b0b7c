// The npm package in `client/`: `keepSession` with each version of phoenix.js, against a scripted server.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { describe } from "node:test";
import { setTimeout as passing } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { keepSession } from "../../client/index.js";
import { Storage, clients } from "./support/client.js";
import { called, collect, next, ok } from "./support/promises.js";
import { startScripted } from "./support/scripted.js";
import { test } from "./support/test.js";
import { until } from "./support/until.js";

const TOPIC = "room:1";
const SOON = { returnAfterMs: () => 50, steadyAfterMs: 150, longPollFallbackMs: 100 };
const event = (ref, n) => JSON.stringify([null, ref, TOPIC, "news", { n }]);
/** A binary broadcast. */
const bytes = (text) => Buffer.concat([Buffer.from([2, TOPIC.length, 4]), Buffer.from(`${TOPIC}news${text}`)]);

for (const version of ["phoenix-1.5", "phoenix-1.6", "phoenix-1.7", "phoenix-1.8.0", "phoenix-1.8"]) {
  for (const client of await clients(version)) describe(client.name, () => keeping(client));
}

for (const version of ["phoenix-1.7", "phoenix-1.8.0", "phoenix-1.8"]) {
  const [client] = await clients(version);
  describe(`phoenix ${client.phoenix.version} on long poll`, () => returning(client));
}

test("types are checked as phoenix.js users expect", async () => {
  const here = fileURLToPath(new URL(".", import.meta.url));
  await promisify(execFile)("node_modules/.bin/tsc", ["-p", "."], { cwd: here }).catch(({ stdout }) => {
    throw new Error(stdout);
  });
});

/** Sequence numbers and connect parameters. */
function keeping(client) {
  test("a socket uses one session id for all its connections", async (t) => {
    const { server } = await joined(t);
    await reconnected(server);
    const ids = () => [...new Set(server.connects.map(({ params }) => params.session))];
    const [id, ...others] = ids();
    assert.match(id, /^[A-Za-z0-9_-]{22,64}$/);
    assert.deepEqual(others, []);
    await joined(t, { server });
    assert.equal(ids().length, 2);
  });

  test("the application's parameters are kept, and computed anew if they are a function", async (t) => {
    const plain = await joined(t, { params: { token: "a" } });
    const tokens = ["b", "c"];
    const made = await joined(t, { params: () => ({ token: tokens.shift() }) });
    await reconnected(made.server);
    const seen = [plain, made].flatMap(({ server }) => server.connects.map(({ params }) => params.token));
    assert.deepEqual(seen, ["a", "b", "c"]);
  });

  test("each connection sends the last received number", async (t) => {
    const { server, room } = await joined(t);
    const news = collect(room, "news");
    server.send(event("s:4", 4));
    server.send(event("s:7", 7));
    await until("both have arrived", () => news.length === 2);
    await reconnected(server);
    assert.deepEqual(server.connects.map(({ params }) => params.received), ["0", "7"]);
  });

  test("messages with a number already seen are dropped", async (t) => {
    const { server, room } = await joined(t);
    const news = collect(room, "news");
    for (const n of [1, 2, 2, 1, 3]) server.send(event(`s:${n}`, n));
    await until("the last has arrived", () => news.at(-1)?.n === 3);
    assert.deepEqual(news.map(({ n }) => n), [1, 2, 3]);
  });

  test("phoenix.js sees null in place of the number", async (t) => {
    const { server, socket } = await joined(t);
    const received = called((f) => socket.onMessage((message) => message.event === "news" && f(message)));
    server.send(event("s:1", 1));
    assert.equal((await received).ref, null);
  });

  test("replies pass and are not counted", async (t) => {
    const { server, room } = await joined(t);
    await Promise.all([ok(room.push("ping")), ok(room.push("ping"))]);
    await reconnected(server);
    assert.equal(server.connects.at(-1).params.received, "0");
  });

  test("a binary message is decoded and counted", async (t) => {
    const { server, room } = await joined(t);
    const news = collect(room, "news");
    server.send(event("s:1", 1));
    server.send(bytes("two"));
    server.send(event("s:2", 2));
    server.send(event("s:3", 3));
    await until("the last has arrived", () => news.at(-1)?.n === 3);
    assert.deepEqual(news.map((payload) => payload.n ?? Buffer.from(payload).toString()), [1, "two", 3]);
  });

  test("nothing is counted if the server sends no numbers", async (t) => {
    const { server, room } = await joined(t);
    const news = collect(room, "news");
    server.send(event("s:4", 4));
    await until("it has arrived", () => news.length === 1);
    await reconnected(server);
    server.send(event(null, 5));
    server.send(bytes("six"));
    await until("both have arrived", () => news.length === 3);
    await reconnected(server);
    assert.deepEqual(server.connects.map(({ params }) => params.received), ["0", "4", "4"]);
  });

  test("a custom decoder is used", async (t) => {
    const decode = (text, done) => {
      const [join_ref, ref, topic, event, payload] = JSON.parse(text);
      done({ join_ref, ref, topic, event, payload: { ...payload, custom: true } });
    };
    const { server, room } = await joined(t, { decode });
    const news = next(room, "news");
    server.send(event("s:1", 1));
    assert.deepEqual(await news, { n: 1, custom: true });
  });

  test("a message decoded after its connection is gone does not count as received", async (t) => {
    const late = [];
    const decode = (text, done) => {
      const [join_ref, ref, topic, event, payload] = JSON.parse(text);
      const deliver = () => done({ join_ref, ref, topic, event, payload });
      if (event === "news") late.push(deliver);
      else deliver();
    };
    const { server } = await joined(t, { decode });
    server.send(event("s:1", 1));
    await until("it has arrived", () => late.length === 1);
    await reconnected(server);
    late[0]();
    await reconnected(server);
    assert.equal(server.connects.at(-1).params.received, "0");
  });

  test("a clean disconnect ends the session, and the next connection begins another one", async (t) => {
    const { server, socket } = await joined(t);
    await called((f) => socket.disconnect(f));
    await until("the end has arrived", () => ends(server).length === 1);
    assert.deepEqual(ends(server), [client.transport]);
    socket.connect();
    await until("it has connected again", () => server.connects.length === 2 && socket.isConnected());
    const [first, second] = server.connects.map(({ params }) => params.session);
    assert.notEqual(first, second);
  });

  test("a disconnect while the line is down ends the session, too", async (t) => {
    const { server, socket } = await joined(t, { reconnectAfterMs: () => 60_000 });
    const lost = called((f) => socket.onClose(f));
    server.cut();
    await lost;
    const ended = server.connects[0].params.session;
    assert.equal(socket.params().session, ended);
    await called((f) => socket.disconnect(f));
    assert.notEqual(socket.params().session, ended);
  });

  test("a lost connection does not end the session", async (t) => {
    const { server } = await joined(t);
    await reconnected(server);
    assert.deepEqual(ends(server), []);
  });

  test("a page that unloads ends its session, and one that may be shown again does not", async (t) => {
    const page = new EventTarget();
    globalThis.addEventListener = page.addEventListener.bind(page);
    t.after(() => delete globalThis.addEventListener);
    const { server, socket } = await joined(t);
    const hide = (persisted) => {
      page.dispatchEvent(Object.assign(new Event("pagehide"), { persisted }));
      return called((f) => socket.disconnect(f)); // as phoenix.js does from 1.6 on
    };
    await hide(true);
    page.dispatchEvent(new Event("pageshow"));
    socket.connect();
    await until("it is back", () => server.connects.length === 2 && socket.isConnected());
    const [first, second] = server.connects.map(({ params }) => params.session);
    assert.deepEqual([ends(server), first], [[], second]);
    hide(false);
    await until("the end has arrived", () => ends(server).length === 1);
    assert.deepEqual(ends(server), [client.transport]);
  });

  test("options work for one socket only", async (t) => {
    const options = keepSession();
    const { socket } = await joined(t, { keep: (defaults) => ({ ...defaults, ...options }) });
    const other = client.socket(t, { to: socket, keep: (defaults) => ({ ...defaults, ...options }) });
    assert.throws(() => other.connect(), /another socket/);
  });

  async function joined(t, { server, ...options } = {}) {
    server ??= await startScripted();
    t.after(server.stop);
    const socket = client.connect(t, { to: server, keep: keepSession, ...options });
    const room = socket.channel(TOPIC);
    await ok(room.join());
    return { server, socket, room };
  }

  /** The transports over which a session was ended. */
  function ends(server) {
    return server.messages.filter(({ message }) => message[3] === "end_session").map(({ transport }) => transport);
  }

  async function reconnected(server) {
    const before = server.connects.length;
    server.cut();
    await until("it has reconnected", () => server.connects.length > before);
  }
}

/** Returning to WebSocket, for versions that fall back by themselves. */
function returning(client) {
  const { LongPoll } = client.phoenix;
  const onLongPoll = (socket) => socket.transport === LongPoll && socket.isConnected();
  const onWebSocket = (socket) => socket.transport !== LongPoll && socket.isConnected();

  test("a socket returns to WebSocket once that works again", async (t) => {
    const { server, socket, room } = await fallenBack(t);
    server.upgrades = "accept";
    await until("it is back", () => onWebSocket(socket) && room.state === "joined");
    await ok(room.push("ping"));
  });

  test("the number received over long poll is sent over WebSocket", async (t) => {
    const { server, socket, room } = await fallenBack(t);
    const news = collect(room, "news");
    server.send(event("s:3", 3));
    await until("it has arrived", () => news.length === 1);
    server.upgrades = "accept";
    await until("it is back", () => onWebSocket(socket));
    const { params } = server.connects.filter(({ params }) => params.session).at(-1);
    assert.equal(params.received, "3");
  });

  test("the test WebSocket does not join the session", async (t) => {
    const { server, socket } = await fallenBack(t, { params: { token: "a", session: "the application's" } });
    server.upgrades = "accept";
    await until("it is back", () => onWebSocket(socket));
    const [first, second] = server.connects.filter(({ transport }) => transport === "websocket");
    assert.deepEqual([first.params.session, first.params.token], [undefined, "a"]);
    assert.equal(second.params.session, server.connects[0].params.session);
  });

  test("a socket does not move to short-lived WebSockets, and counts its tries", async (t) => {
    const tries = [];
    const returnAfterMs = (n) => {
      tries.push(n);
      return 30;
    };
    const { server, socket, room } = await fallenBack(t, { returnAfterMs });
    const closes = [];
    socket.onClose(() => closes.push("close"));
    room.onError(() => closes.push("error"));
    server.upgrades = 60;
    await until("it was tried three times", () => tries.length >= 4);
    assert.deepEqual([tries.slice(0, 4), closes, onLongPoll(socket)], [[1, 2, 3, 4], [], true]);
  });

  test("a socket does not move to a WebSocket that never answers", async (t) => {
    const tries = [];
    const { server, socket } = await fallenBack(t, { returnAfterMs: (n) => tries.push(n) && 30 });
    server.upgrades = "accept";
    server.mute = true;
    await until("it was tried twice", () => tries.length >= 3);
    assert.ok(onLongPoll(socket));
  });

  test("a socket does not move while a push is in flight", async (t) => {
    const { server, socket, room } = await fallenBack(t);
    let release;
    server.uploads = new Promise((resolve) => (release = resolve));
    room.push("ping");
    server.upgrades = "accept";
    await until("a test WebSocket has connected", () => server.connects.at(-1).transport === "websocket");
    await passing(3 * SOON.steadyAfterMs);
    assert.ok(onLongPoll(socket));
    release();
    await until("it is back", () => onWebSocket(socket));
  });

  test("a socket that always has a push in flight moves, too, and nothing is lost", async (t) => {
    const server = await startScripted();
    server.tracks = true;
    Object.defineProperty(server, "uploads", { get: () => passing(60) });
    const { socket, room } = await fallenBack(t, { server });
    let pushed = 0;
    const pushing = setInterval(() => room.push("ping", { n: (pushed += 1) }), 10);
    t.after(() => clearInterval(pushing));
    server.upgrades = "accept";
    await until("it is back", () => onWebSocket(socket) && room.state === "joined");
    clearInterval(pushing);
    const arrived = () => new Set(server.messages.flatMap(({ message: [, , , event, { n }] }) => (event === "ping" ? n : [])));
    await until("all pushes have arrived", () => arrived().size === pushed);
  });

  test("after its return, a socket reconnects over WebSocket, and so does the page's next socket", async (t) => {
    const sessionStorage = new Storage();
    const { server, socket } = await fallenBack(t, { sessionStorage });
    server.upgrades = "accept";
    await until("it is back", () => onWebSocket(socket));
    await passing(20);
    server.connects.length = 0;
    server.cut();
    await until("it has reconnected", () => server.connects.length > 0 && socket.isConnected());
    const other = client.connect(t, { to: server, keep: keepSession, sessionStorage, ...SOON });
    await until("the other is connected", () => other.isConnected());
    assert.deepEqual(server.connects.map(({ transport }) => transport), ["websocket", "websocket"]);
  });

  test("a page that starts on long poll because the last one ended there moves to WebSocket", async (t) => {
    const sessionStorage = new Storage();
    sessionStorage.setItem("phx:fallback:LongPoll", "true");
    sessionStorage.setItem(`phx:fallback:${LongPoll.name}`, "true");
    const server = await startScripted();
    t.after(server.stop);
    const socket = client.connect(t, { to: server, keep: keepSession, sessionStorage, ...SOON });
    await until("it is on long poll", () => onLongPoll(socket));
    await until("it is on WebSocket", () => onWebSocket(socket));
  });

  test("a disconnected socket makes no tries", async (t) => {
    const { server, socket } = await fallenBack(t, { returnAfterMs: () => 100 });
    server.upgrades = "accept";
    socket.disconnect();
    server.connects.length = 0;
    await passing(300);
    assert.deepEqual(server.connects, []);
  });

  async function fallenBack(t, { server, ...options } = {}) {
    server ??= await startScripted();
    t.after(server.stop);
    server.upgrades = "refuse";
    const socket = client.connect(t, { to: server, keep: keepSession, ...SOON, ...options });
    const room = socket.channel(TOPIC);
    await ok(room.join());
    assert.ok(onLongPoll(socket));
    return { server, socket, room };
  }
}

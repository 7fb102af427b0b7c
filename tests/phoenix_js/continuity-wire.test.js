// Resumable sessions on the wire: what browsers and networks do that no version of the package does by itself.
import assert from "node:assert/strict";
import { once } from "node:events";
import { setTimeout as passing } from "node:timers/promises";
import { after, before, describe } from "node:test";
import { WebSocket } from "ws";
import { keepSession } from "../../client/index.js";
import { newId } from "./continuity/members.js";
import { clients, unique } from "./support/client.js";
import { startFaultProxy } from "./support/fault_proxy.js";
import { ok } from "./support/promises.js";
import { example, startServer } from "./support/server.js";
import { test } from "./support/test.js";
import { until } from "./support/until.js";

/** The recommended `longPollFallbackMs`: how long phoenix.js waits for its first health check. */
const FALLBACK_MS = 2500;
const KIB = "x".repeat(1024);
let server;
before(async () => (server = await startServer(example("reference"))));
after(() => server.stop());

/** A WebSocket that the client can take for lost, and that answers for ever. */
class Undead {
  #socket;
  #isLost = false;

  constructor(url) {
    this.#socket = new WebSocket(url);
    for (const event of ["onopen", "onmessage", "onerror", "onclose"]) this.#socket[event] = (it) => !this.#isLost && this[event]?.(it);
  }
  get readyState() {
    return this.#isLost ? WebSocket.CLOSED : this.#socket.readyState;
  }
  bufferedAmount = 0;
  send = (message) => this.#socket.send(message);
  close = () => this.#isLost || this.#socket.close();
  lose() {
    this.#isLost = true;
    this.onclose?.({ code: 1006, wasClean: false });
  }
}

for (const version of ["phoenix-1.6", "phoenix-1.8"]) {
  test(`${version}: a client that is taken for two receives nothing twice`, { timeout: 40_000 }, async (t) => {
    const [client] = await clients(version, server);
    const options = { params: { user_id: unique("user") }, keep: keepSession, transport: Undead, reconnectAfterMs: () => 20 };
    const socket = client.connect(t, options);
    const room = socket.channel(unique("room:"));
    const received = [];
    room.on("new_msg", ({ n }) => received.push(n));
    await ok(room.join());
    let sent = 0;
    const say = () => server.post("/broadcast", { topic: room.topic, event: "new_msg", payload: { n: (sent += 1) } });
    const hears = (n) => until(`message ${n} has arrived`, () => received.includes(n));
    const returns = async () => {
      const { conn } = socket;
      conn.lose();
      await until("it is back", () => socket.conn !== conn && socket.isConnected() && room.state === "joined");
    };
    for (let times = 0; times < 14; times += 1) {
      await say();
      await hears(sent);
      await returns();
    }
    await passing(10_500); // until the conflict is forgotten
    await returns();
    await say();
    await hears(sent);
    assert.deepEqual(received, Array.from({ length: sent }, (_, index) => index + 1));
  });
}

for (const numbered of [false, true]) {
  describe(numbered ? "a client that reads numbers" : "a client without numbers", () => {
    test("a repeated poll is answered with the same messages", async () => {
      const me = await overLongPoll(numbered);
      await me.post(["1", "1", me.topic, "phx_join", {}]);
      await me.post(["1", "2", me.topic, "push_me", { n: 1 }]);
      const first = await me.poll();
      const again = await me.poll();
      assert.deepEqual(again.messages.slice(0, first.messages.length), first.messages);
    });

    test("a poll with the newest token is not answered with earlier messages", async () => {
      const me = await overLongPoll(numbered);
      await me.post(["1", "1", me.topic, "phx_join", {}]);
      await receive(me, "joined");
      await me.post(["1", "2", me.topic, "push_me", { n: 1 }]);
      const messages = await receive(me, "pushed");
      assert.equal(messages.filter(([, , , event]) => event === "joined").length, 0);
    });

    test("a repeated POST is handled once", async () => {
      const me = await overLongPoll(numbered);
      await me.post(["1", "1", me.topic, "phx_join", {}]);
      await receive(me, "joined");
      const message = ["1", "2", me.topic, "new_msg", { n: 1 }];
      const next = ["1", "3", me.topic, "new_msg", { n: 2 }];
      const statuses = [await me.post(message), await me.post(message), await me.post(next)];
      const messages = [];
      while (!messages.some(([, , , , payload]) => payload.n === 2)) messages.push(...(await receive(me, "new_msg")));
      assert.deepEqual(statuses, [200, 200, 200]);
      assert.deepEqual(messages.filter(([, , , event]) => event === "new_msg").map(([, , , , { n }]) => n), [1, 2]);
    });

    test("a token of an older connection is answered 500, and the newer connection continues", async () => {
      const older = await overLongPoll(numbered);
      await older.post(["1", "1", older.topic, "phx_join", {}]);
      await receive(older, "joined");
      const newer = await overLongPoll(numbered, older);
      await newer.post(["2", "2", newer.topic, "phx_join", {}]);
      await receive(newer, "phx_reply");
      assert.equal((await older.poll()).status, 500);
      await newer.post(["2", "3", newer.topic, "push_me", { n: 1 }]);
      await receive(newer, "pushed");
    });

    test("a join during a replay is answered at once, and the replay loses and repeats nothing", async (t) => {
      const { me, proxy } = await withBacklog(t, numbered, 750);
      await proxy.rate(100_000);
      const again = await overWebSocket(t, numbered, proxy, me);
      again.send(["2", "2", me.topic, "phx_join", {}]);
      await until("the replay has begun", () => again.news().length > 10);
      again.send(["3", "3", me.topic, "phx_join", {}]);
      await until("the join is answered", () => again.reply("3"));
      assert.ok(again.news().length < 600, `after ${again.news().length} of 750`);
      await proxy.rate(0);
      await until("everything has arrived", () => again.news().length >= 750);
      again.send(["3", "4", me.topic, "ping", {}]);
      await until("nothing is left", () => again.reply("4"));
      assert.deepEqual(again.news(), upTo(750));
    });

    test("a connection that takes over during a replay receives what the other did not", async (t) => {
      // Less than the 256 KiB that the server retains after a Pong, however late the takeover is.
      const { me, proxy } = await withBacklog(t, numbered, 200);
      await proxy.rate(100_000);
      const one = await overWebSocket(t, numbered, proxy, me);
      one.send(["2", "2", me.topic, "phx_join", {}]);
      await until("the replay has begun", () => one.news().length > 10);
      const seen = one.news();
      const received = one.received;
      one.stopListening();
      await proxy.rate(0);
      const other = await overWebSocket(t, numbered, proxy, { ...me, received });
      other.send(["3", "3", me.topic, "phx_join", {}]);
      await until("everything has arrived", () => other.news().at(-1) === 200);
      if (numbered) assert.deepEqual([...seen, ...other.news()], upTo(200));
      else assert.deepEqual([...new Set([...seen, ...other.news()])].sort((a, b) => a - b), upTo(200));
    });

    test("a health check overtakes a long replay on a slow link", async (t) => {
      const { me, proxy } = await withBacklog(t, numbered, 750);
      await proxy.rate(100_000);
      const again = await overWebSocket(t, numbered, proxy, me);
      again.send(["2", "2", me.topic, "phx_join", {}]);
      await until("the replay has begun", () => again.news().length > 10);
      again.send([null, "3", "phoenix", "heartbeat", {}]);
      const asked = Date.now();
      await until("it is answered", () => again.reply("3"));
      const tookMs = Date.now() - asked;
      assert.ok(tookMs < FALLBACK_MS, `${tookMs} ms, after ${again.news().length} of 750`);
    });
  });
}

/** Returns a client that is away while `count` messages of a kibibyte are broadcast. */
async function withBacklog(t, numbered, count) {
  const proxy = await startFaultProxy(server);
  t.after(proxy.stop);
  const me = await overWebSocket(t, numbered, proxy);
  me.send(["1", "1", me.topic, "phx_join", {}]);
  await until("it has joined", () => me.messages.some(([, , , event]) => event === "joined"));
  me.send(["1", "2", me.topic, "ping", {}]);
  await until("it has received the reply", () => me.reply("2"));
  await proxy.kill();
  await me.closed;
  for (let n = 1; n <= count; n += 1) {
    await server.post("/broadcast", { topic: me.topic, event: "news", payload: { n, pad: KIB } });
  }
  return { proxy, me };
}

function query(numbered, { session, user, received = 0 }) {
  return `vsn=2.0.0&user_id=${user}&session=${session}${numbered ? `&received=${received}` : ""}`;
}

const newcomer = () => ({ session: newId(), user: unique("user"), topic: unique("room:") });
const upTo = (last) => Array.from({ length: last }, (_, index) => index + 1);

async function overWebSocket(t, numbered, to, who = newcomer()) {
  const { session, user, topic } = who;
  const socket = new WebSocket(`ws://${to.host}/socket/websocket?${query(numbered, who)}`);
  const me = { session, user, topic, received: 0, messages: [] };
  const listen = (data) => {
    const message = JSON.parse(data);
    const number = /^s:(\d+)$/.exec(message[1]);
    if (number) me.received = Number(number[1]);
    me.messages.push(message);
  };
  socket.on("message", listen);
  socket.on("error", () => {});
  me.closed = once(socket, "close");
  me.send = (message) => socket.send(JSON.stringify(message));
  me.news = () => me.messages.filter(([, , , event]) => event === "news").map(([, , , , { n }]) => n);
  me.reply = (ref) => me.messages.find(([, echoed, , event]) => event === "phx_reply" && echoed === ref);
  /** Stays connected, but ignores everything from now on. */
  me.stopListening = () => socket.off("message", listen);
  t.after(() => socket.terminate());
  await once(socket, "open");
  return me;
}

async function overLongPoll(numbered, who = newcomer()) {
  const url = `http://${server.host}/socket/longpoll?${query(numbered, who)}`;
  const { session, user, topic } = who;
  const me = { session, user, topic, token: null };
  me.poll = async () => {
    const answer = await (await fetch(me.token ? `${url}&token=${me.token}` : url)).json();
    const messages = answer.messages?.map((message) => JSON.parse(message)) ?? [];
    return { ...answer, messages };
  };
  me.post = async (message) => {
    const options = { method: "POST", body: JSON.stringify(message), headers: { "content-type": "application/x-ndjson" } };
    return (await (await fetch(`${url}&token=${me.token}`, options)).json()).status;
  };
  const { status, token } = await me.poll();
  assert.equal(status, 410);
  me.token = token;
  return me;
}

/** Polls until `event` arrives, and returns the messages of all polls. */
async function receive(me, event) {
  const all = [];
  while (!all.some((message) => message[3] === event)) {
    const { status, token, messages } = await me.poll();
    assert.ok(status === 200 || status === 204, `status ${status}`);
    me.token = token;
    all.push(...messages);
  }
  return all;
}

// What broke simpler designs, each a test of its own.
import assert from "node:assert/strict";
import { setTimeout as passing } from "node:timers/promises";
import { unique } from "../support/client.js";
import { busyWebSocket } from "../support/busy.js";
import { startFaultProxy } from "../support/fault_proxy.js";
import { ok, outcome } from "../support/promises.js";
import { startProxy } from "../support/proxy.js";
import { example, startServer } from "../support/server.js";
import { until } from "../support/until.js";
import { newId } from "./members.js";

export function cases(test, client, member, full) {
  const overWebSocket = client.overWebSocket ? test : () => {};

  test("a push that was handled while the client was away is answered after it returned", async (t) => {
    const { proxy, me } = await through(t);
    const slow = outcome(me.room.push("slow", { ms: 500 }));
    await ok(me.room.push("ping"));
    await away(proxy, () => passing(700));
    assert.deepEqual(await slow, ["ok", { ms: 500 }]);
  });

  test("a member that only listens hears what was said while it was away", async (t) => {
    const { proxy, me } = await through(t);
    await away(proxy, () => say(me, 1, 20));
    await hears(me, 20);
    if (member.kept) assert.equal(me.heard.joined.length, 1);
  });

  test("a member that was away for too long joins again", async (t) => {
    const server = await briefly(t);
    const { proxy, me } = await through(t, { server });
    await say(me, 1, 5, server);
    await hears(me, 5);
    await away(proxy, () => passing(1000));
    await until("it has joined again", () => me.heard.joined.length > 1);
    await say(me, 6, 10, server);
    await hears(me, 10);
  });

  test("a member whose session ended behind its back is healed although it only listens", async (t) => {
    const server = await briefly(t);
    const { proxy, me } = await through(t, { server, heartbeatIntervalMs: 400 });
    await say(me, 1, 5, server);
    await hears(me, 5);
    await proxy.delay(2000);
    await passing(1200);
    await proxy.delay(0);
    let n = 5;
    await until("it hears again", async () => {
      await say(me, (n += 1), n, server);
      return me.heard.news.some((news) => news.n > 5);
    });
  });

  overWebSocket("what a busy page had not read when its heartbeat closed the socket is said again", async (t) => {
    const page = { msPerMessage: 40 };
    const { proxy, me } = await through(t, { transport: busyWebSocket(page), heartbeatIntervalMs: 400 });
    me.socket.onClose(() => (page.msPerMessage = 0));
    await proxy.rate(200_000);
    await say(me, 1, 150, client.server, "x".repeat(500));
    await until("it was closed", () => page.msPerMessage === 0);
    await proxy.rate(0);
    await hears(me, 150);
  });

  test("a topic that is joined again later than another loses nothing", async (t) => {
    const { proxy, me: early } = await through(t);
    const late = enterLate(early.socket);
    await ok(late.joined);
    const both = async (first, last) => {
      await say(early, first, last);
      await say(late, first, last);
    };
    await away(proxy, () => both(1, 10));
    await hears(early, 10);
    await away(proxy, () => both(11, 15));
    await hears(early, 15);
    late.soon();
    await hears(late, 15);
  });

  overWebSocket("a join that times out on a half-open connection loses nothing", { timeout: 60_000 }, async (t) => {
    const [timeout, halfOpenMs] = full ? [10_000, 12_000] : [600, 1500];
    const proxy = await startProxy(client.server);
    t.after(() => proxy.stop());
    const me = await member(t, { to: proxy, topic: unique("room:"), timeout });
    proxy.upgrades = "mute";
    proxy.cut();
    await until("it is half open", () => me.socket.isConnected() && me.room.state === "joining");
    await say(me, 1, 10);
    await passing(halfOpenMs);
    await say(me, 11, 20);
    proxy.upgrades = "pass";
    proxy.cut();
    await hears(me, 20);
    if (member.kept) assert.equal(me.heard.joined.length, 1);
  });

  test("two tabs with one id come to rest, and both hear all from then on", async (t) => {
    const params = { topic: unique("room:"), user: unique("user"), session: newId(), to: client.server };
    const [one, other] = await Promise.all([member(t, params), member(t, params)]);
    let closedAt = Date.now();
    for (const { socket } of [one, other]) socket.onClose(() => (closedAt = Date.now()));
    const calm = () => Date.now() - closedAt > 1000;
    await until("neither was closed for a while", () => one.isThere() && other.isThere() && calm());
    await say(one, 1, 5);
    await Promise.all([hears(one, 5), hears(other, 5)]);
  });

  test("a session id is worth nothing to another user", async (t) => {
    const session = newId();
    const topic = unique("room:");
    const owner = await member(t, { to: client.server, topic, session });
    const closes = [];
    owner.socket.onClose(() => closes.push("close"));
    const other = await member(t, { to: client.server, topic, session });
    await until("it is a member of its own", () => other.heard.joined.length === 1);
    await say(owner, 1, 3);
    await Promise.all([hears(owner, 3), hears(other, 3)]);
    assert.deepEqual(closes, []);
    for (const { user, heard } of [owner, other]) assert.deepEqual(heard.joined, [{ user_id: user }]);
  });

  /** A member behind a proxy. */
  async function through(t, { server = client.server, ...options } = {}) {
    const proxy = await startFaultProxy(server);
    t.after(proxy.stop);
    t.diagnostic(`FAULT_SEED=${proxy.seed}`);
    return { proxy, me: await member(t, { to: proxy, topic: unique("room:"), ...options }) };
  }

  /** A server that keeps sessions for a moment only. */
  async function briefly(t) {
    const env = { SESSION_TTL_MS: 600, WINDOW_MS: 200 };
    const server = await startServer(example("reference"), { env });
    t.after(() => server.stop());
    return server;
  }

  /** Does something while nobody gets through. */
  async function away(proxy, meanwhile) {
    await proxy.refuse(true);
    await proxy.kill();
    await meanwhile();
    await proxy.refuse(false);
  }

  async function say({ room }, first, last, server = client.server, pad = "") {
    for (let n = first; n <= last; n += 1) {
      await server.post("/broadcast", { topic: room.topic, event: "news", payload: { n, pad } });
    }
  }

  /** All up to `last`; in order and once, if the client keeps its session. */
  async function hears({ heard }, last) {
    const numbers = () => heard.news.map(({ n }) => n);
    const all = Array.from({ length: last }, (_, index) => index + 1);
    await until(
      () => `heard ${numbers()} of ${last}`,
      () => all.every((n) => numbers().includes(n)),
    );
    if (member.kept) assert.deepEqual(numbers(), all);
  }

  /** A topic that takes its time to join again. */
  function enterLate(socket) {
    const late = member.enter(socket, unique("room:"));
    const rejoin = late.room.rejoin.bind(late.room);
    let wanted = false;
    late.room.rejoin = () => (wanted = true);
    late.soon = () => {
      late.room.rejoin = rejoin;
      if (wanted) rejoin();
    };
    return late;
  }
}

// Situations that broke simpler designs, one per test.
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

  test("a push handled while the client was away is answered after it returns", async (t) => {
    const { proxy, me } = await behindProxy(t);
    const slow = outcome(me.room.push("slow", { ms: 500 }));
    await ok(me.room.push("ping"));
    await away(proxy, () => passing(700));
    assert.deepEqual(await slow, ["ok", { ms: 500 }]);
  });

  test("a member that only listens receives what was broadcast while it was away", async (t) => {
    const { proxy, me } = await behindProxy(t);
    await away(proxy, () => broadcast(me, 1, 20));
    await receives(me, 20);
    if (member.kept) assert.equal(me.received.joined.length, 1);
  });

  test("a member that was away for too long joins anew", async (t) => {
    const server = await shortLived(t);
    const { proxy, me } = await behindProxy(t, { server });
    await broadcast(me, 1, 5, server);
    await receives(me, 5);
    await away(proxy, () => passing(1000));
    await until("it has joined anew", () => me.received.joined.length > 1);
    await broadcast(me, 6, 10, server);
    await receives(me, 10);
  });

  test("a member that only listens recovers when its session ends unnoticed", async (t) => {
    const server = await shortLived(t);
    const { proxy, me } = await behindProxy(t, { server, heartbeatIntervalMs: 400 });
    await broadcast(me, 1, 5, server);
    await receives(me, 5);
    await proxy.delay(2000);
    await passing(1200);
    await proxy.delay(0);
    let n = 5;
    await until("it receives again", async () => {
      await broadcast(me, (n += 1), n, server);
      return me.received.news.some((news) => news.n > 5);
    });
  });

  overWebSocket("messages that a busy page had not handled when its heartbeat closed the socket come again", async (t) => {
    const page = { msPerMessage: 40 };
    const { proxy, me } = await behindProxy(t, { transport: busyWebSocket(page), heartbeatIntervalMs: 400 });
    me.socket.onClose(() => (page.msPerMessage = 0));
    await proxy.rate(200_000);
    await broadcast(me, 1, 150, client.server, "x".repeat(500));
    await until("it was closed", () => page.msPerMessage === 0);
    await proxy.rate(0);
    await receives(me, 150);
  });

  test("a topic that rejoins later than another loses nothing", async (t) => {
    const { proxy, me: early } = await behindProxy(t);
    const late = enterLate(early.socket);
    await ok(late.joined);
    const both = async (first, last) => {
      await broadcast(early, first, last);
      await broadcast(late, first, last);
    };
    await away(proxy, () => both(1, 10));
    await receives(early, 10);
    await away(proxy, () => both(11, 15));
    await receives(early, 15);
    late.release();
    await receives(late, 15);
  });

  overWebSocket("a join that times out on a half-open connection loses nothing", { timeout: 60_000 }, async (t) => {
    // no shorter than 5 s: where nothing is acknowledged, a leave that comes sooner after its join is the page's own
    const [timeout, halfOpenMs] = full ? [10_000, 12_000] : [5500, 7500];
    const proxy = await startProxy(client.server);
    t.after(() => proxy.stop());
    const me = await member(t, { to: proxy, topic: unique("room:"), timeout });
    proxy.upgrades = "mute";
    proxy.cut();
    await until("it is half open", () => me.socket.isConnected() && me.room.state === "joining");
    await broadcast(me, 1, 10);
    await passing(halfOpenMs);
    await broadcast(me, 11, 20);
    proxy.upgrades = "pass";
    proxy.cut();
    await receives(me, 20);
    if (member.kept) assert.equal(me.received.joined.length, 1);
  });

  test("a topic that one part of the page leaves and another joins at once stays joined", async (t) => {
    const me = await member(t, { to: client.server, topic: unique("room:") });
    for (let round = 0; round < 3; round += 1) {
      me.room.leave();
      Object.assign(me, member.enter(me.socket, me.room.topic));
      await staysJoined(me);
    }
  });

  test("a topic that two parts of the page join stays joined by the second", async (t) => {
    const me = await member(t, { to: client.server, topic: unique("room:") });
    Object.assign(me, member.enter(me.socket, me.room.topic));
    await staysJoined(me);
  });

  test("a topic that is joined again at the answer of a channel that stops stays joined", async (t) => {
    const me = await member(t, { to: client.server, topic: unique("room:") });
    await ok(me.room.push("stop_reply"));
    Object.assign(me, member.enter(me.socket, me.room.topic));
    await staysJoined(me);
  });

  test("a channel that crashes after a return is joined again", async (t) => {
    const { proxy, me } = await behindProxy(t);
    await away(proxy, () => broadcast(me, 1, 2));
    await receives(me, 2);
    const joined = me.received.joined.length;
    me.room.push("boom");
    await until("it has joined anew", () => me.received.joined.length > joined);
    await broadcast(me, 3, 4);
    await receives(me, 4);
  });

  test("two tabs with one session id settle down, and both receive everything from then on", async (t) => {
    const params = { topic: unique("room:"), user: unique("user"), session: newId(), to: client.server };
    const [one, other] = await Promise.all([member(t, params), member(t, params)]);
    let closedAt = Date.now();
    for (const { socket } of [one, other]) socket.onClose(() => (closedAt = Date.now()));
    const calm = () => Date.now() - closedAt > 1000;
    await until("neither was closed for a while", () => one.isThere() && other.isThere() && calm());
    await broadcast(one, 1, 5);
    await Promise.all([receives(one, 5), receives(other, 5)]);
  });

  test("a session id is useless to another user", async (t) => {
    const session = newId();
    const topic = unique("room:");
    const owner = await member(t, { to: client.server, topic, session });
    const closes = [];
    owner.socket.onClose(() => closes.push("close"));
    const other = await member(t, { to: client.server, topic, session });
    await until("it is a separate member", () => other.received.joined.length === 1);
    await broadcast(owner, 1, 3);
    await Promise.all([receives(owner, 3), receives(other, 3)]);
    assert.deepEqual(closes, []);
    for (const { user, received } of [owner, other]) assert.deepEqual(received.joined, [{ user_id: user }]);
  });

  /** Joins a member behind a proxy. */
  async function behindProxy(t, { server = client.server, ...options } = {}) {
    const proxy = await startFaultProxy(server);
    t.after(proxy.stop);
    t.diagnostic(`FAULT_SEED=${proxy.seed}`);
    return { proxy, me: await member(t, { to: proxy, topic: unique("room:"), ...options }) };
  }

  /** Starts a server whose sessions expire soon after their connection is lost. */
  async function shortLived(t) {
    const env = { SESSION_TTL_MS: 600, WINDOW_MS: 200 };
    const server = await startServer(example("reference"), { env });
    t.after(() => server.stop());
    return server;
  }

  /** Runs `meanwhile` while no connection gets through. */
  async function away(proxy, meanwhile) {
    await proxy.refuse(true);
    await proxy.kill();
    await meanwhile();
    await proxy.refuse(false);
  }

  async function broadcast({ room }, first, last, server = client.server, pad = "") {
    for (let n = first; n <= last; n += 1) {
      await server.post("/broadcast", { topic: room.topic, event: "news", payload: { n, pad } });
    }
  }

  /** Waits for all messages up to `last`; with `keepSession` they must come in order and once. */
  async function receives({ received }, last) {
    const numbers = () => received.news.map(({ n }) => n);
    const all = Array.from({ length: last }, (_, index) => index + 1);
    await until(
      () => `received ${numbers()} of ${last}`,
      () => all.every((n) => numbers().includes(n)),
    );
    if (member.kept) assert.deepEqual(numbers(), all);
  }

  /** The channel joins, and still works once late messages for an earlier channel of its topic have arrived. */
  async function staysJoined(me) {
    await ok(me.joined);
    assert.ok(await me.isAnswered());
    await passing(150);
    assert.ok(me.isThere(), me.room.state);
    assert.ok(await me.isAnswered());
    await broadcast(me, 1, 3);
    await receives(me, 3);
  }

  /** Joins a topic that delays its rejoin. */
  function enterLate(socket) {
    const late = member.enter(socket, unique("room:"));
    const rejoin = late.room.rejoin.bind(late.room);
    let wanted = false;
    late.room.rejoin = () => (wanted = true);
    late.release = () => {
      late.room.rejoin = rejoin;
      if (wanted) rejoin();
    };
    return late;
  }
}

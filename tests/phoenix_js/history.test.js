// Topics with a history: clients that were away for longer than their session lives continue where they were, with
// `keepSession` and, by the recipe of its documentation, without it. Each version, over both transports, against the
// reference application.
import assert from "node:assert/strict";
import { after, describe } from "node:test";
import { keepSession } from "../../client/index.js";
import { clients, unique } from "./support/client.js";
import { ok } from "./support/promises.js";
import { startProxy } from "./support/proxy.js";
import { example, startServer } from "./support/server.js";
import { test } from "./support/test.js";
import { until } from "./support/until.js";

const SHORT = { env: { WINDOW_MS: 200, SESSION_TTL_MS: 300 } };
const AWAY_MS = 1500; // longer than a session lives without a connection

/** What a channel has received. */
class Log {
  numbers = [];
  arrivals = [];

  constructor(server, topic, room) {
    Object.assign(this, { server, topic, room });
    const number = ({ n, byteLength, ...rest }) => n ?? rest;
    for (const event of ["new_msg", "shout"]) {
      room.on(event, (payload) => {
        const isBinary = payload instanceof ArrayBuffer || ArrayBuffer.isView(payload);
        this.numbers.push(isBinary ? Number(Buffer.from(payload).toString()) : number(payload));
      });
    }
    this.joined = ok(room.join().receive("ok", ({ arrival }) => this.arrivals.push(arrival)));
  }

  has(n) {
    return until(`message ${n} has arrived`, () => this.numbers.at(-1) === n);
  }

  /** Cuts the connection, and lets something happen before the client is back. */
  async away(proxy, meanwhile) {
    const before = this.arrivals.length;
    proxy.close(true);
    proxy.cut();
    await meanwhile();
    proxy.close(false);
    await until("it is back", () => this.arrivals.length > before);
  }
}

const server = await startServer(example("reference"), SHORT);
after(() => server.stop());
const [writer] = await clients("phoenix-1.8", server);

for (const version of ["phoenix-1.5", "phoenix-1.6", "phoenix-1.7", "phoenix-1.8.0", "phoenix-1.8"]) {
  for (const client of await clients(version, server)) describe(client.name, () => returning(client));
}

function returning(client) {
  test("a client without a session misses nothing while it is away", async (t) => {
    const { log, proxy } = await member(t, { keep: keepSession });
    await say(log, 1, 2);
    await log.has(2);
    await log.away(proxy, () => say(log, 3, 4));
    await say(log, 5);
    await log.has(5);
    assert.deepEqual([log.numbers, log.arrivals], [[1, 2, 3, 4, 5], ["new", "recovered"]]);
  });

  test("nor does one whose session has ended meanwhile, once or twice", async (t) => {
    const params = { user_id: unique("user") };
    const { log, proxy } = await member(t, { keep: keepSession, params, reconnectAfterMs: () => AWAY_MS });
    await log.away(proxy, () => say(log, 1));
    await log.away(proxy, () => say(log, 2, 3));
    await say(log, 4);
    await log.has(4);
    assert.deepEqual([log.numbers, log.arrivals], [[1, 2, 3, 4], ["new", "recovered", "recovered"]]);
  });

  test("nor does one whose session the server has ended", async (t) => {
    const user = unique("user");
    const { log } = await member(t, { keep: keepSession, params: { user_id: user } });
    await say(log, 1);
    await log.has(1);
    await server.post(`/disconnect?id=user_socket:${user}`);
    await say(log, 2, 3);
    await until("it is back", () => log.arrivals.length === 2);
    await say(log, 4);
    await log.has(4);
    assert.deepEqual([log.numbers, log.arrivals], [[1, 2, 3, 4], ["new", "recovered"]]);
  });

  test("a connection that is lost for a moment continues its session", async (t) => {
    const params = { user_id: unique("user") };
    const { log, proxy } = await member(t, { keep: keepSession, params });
    await say(log, 1);
    await log.has(1);
    proxy.cut();
    await say(log, 2, 3);
    await log.has(3);
    assert.deepEqual(log.numbers, [1, 2, 3]);
  });

  test("binary messages and those that the channel handles itself are part of it", async (t) => {
    const { log, proxy } = await member(t, { keep: keepSession });
    await say(log, 1);
    await log.has(1);
    await log.away(proxy, async () => {
      await sayBinary(t, log, "2");
      await server.post("/broadcast", { topic: log.topic, event: "shout", payload: { n: 3 } });
      await say(log, 4);
    });
    await sayBinary(t, log, "5");
    await log.has(5);
    assert.deepEqual([log.numbers, log.arrivals], [[1, 2, 3, 4, 5], ["new", "recovered"]]);
  });

  test("a server that has forgotten everything says so, and goes on", async (t) => {
    const first = await startServer(example("reference"), SHORT);
    const { log } = await member(t, { keep: keepSession, to: first });
    await say(log, 1);
    await log.has(1);
    await first.kill();
    const second = await startServer(example("reference"), { ...SHORT, addr: first.host });
    t.after(() => second.stop());
    log.server = second;
    await until("it is back", () => log.arrivals.length >= 2);
    await say(log, 2);
    await log.has(2);
    assert.deepEqual([log.numbers, log.arrivals], [[1, 2], ["new", "gap"]]);
  });

  test("a channel that was left begins anew", async (t) => {
    const { socket, log, room } = await member(t, { keep: keepSession });
    await say(log, 1);
    await log.has(1);
    await ok(room.leave());
    await say(log, 2);
    const again = socket.channel(log.topic);
    assert.deepEqual(await ok(again.join()), { arrival: "new" });
  });

  test("the recipe for a client without the package", async (t) => {
    const { log, proxy } = await member(t, { params: { positions: "refs" }, recipe: true });
    await log.away(proxy, () => say(log, 1));
    await say(log, 2);
    await log.has(2);
    await log.away(proxy, () => say(log, 3, 4));
    await log.away(proxy, () => {});
    await say(log, 5);
    await log.has(5);
    const arrivals = ["new", "recovered", "recovered", "recovered"];
    assert.deepEqual([log.numbers, log.arrivals], [[1, 2, 3, 4, 5], arrivals]);
  });

  /** Joins a topic of its own through a proxy. */
  async function member(t, { to = server, recipe = false, ...options }) {
    const proxy = await startProxy(to);
    t.after(proxy.stop);
    const socket = client.connect(t, { to: proxy, longpollerTimeout: 2000, ...options });
    const topic = unique("log:");
    const room = recipe ? remembering(socket, topic) : socket.channel(topic);
    const log = new Log(to, topic, room);
    await log.joined;
    return { socket, room, log, proxy };
  }
}

/** A channel of an unmodified client that continues after its last message. */
function remembering(socket, topic) {
  let after;
  const channel = socket.channel(topic, () => (after ? { after } : {}));
  channel.onMessage = (event, payload, ref) => {
    after = /^(?:p|s:\d+):(.+)$/.exec(ref)?.[1] ?? after;
    return payload;
  };
  return channel;
}

async function say(log, ...numbers) {
  for (const n of numbers) await log.server.post("/broadcast", { topic: log.topic, event: "new_msg", payload: { n } });
}

async function sayBinary(t, log, text) {
  const socket = writer.connect(t);
  const room = socket.channel(log.topic);
  await ok(room.join());
  const heard = new Promise((resolve) => room.on("new_msg", resolve));
  room.push("new_msg", new TextEncoder().encode(text).buffer);
  await heard;
}

// What clients with `keepSession` receive of a topic with a history in SQLite whose server is killed and started again.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe } from "node:test";
import { setTimeout as passing } from "node:timers/promises";
import { keepSession } from "../../client/index.js";
import { clients, unique } from "./support/client.js";
import { enterLog } from "./support/log.js";
import { example, startServer } from "./support/server.js";
import { test } from "./support/test.js";
import { until } from "./support/until.js";

const KILLS = 5;
const LONGEST_MS = 400; // between two kills
const PAUSE_MS = 3;

for (const version of ["phoenix-1.6", "phoenix-1.7", "phoenix-1.8"]) {
  for (const client of await clients(version)) describe(client.name, () => killing(client));
}

function killing(client) {
  test("two clients that write while the server is killed miss nothing and receive nothing twice", { timeout: 60_000 }, async (t) => {
    const place = await started(t);
    const topic = unique("log:");
    const writers = await Promise.all(["ann", "bob"].map((name) => enter(t, place, client, topic, name)));
    let writing = true;
    const written = writers.map((writer) => writer.write(() => writing));
    for (let kill = 0; kill < KILLS; kill += 1) {
      await passing(Math.random() * LONGEST_MS);
      await place.restart();
      const before = writers.map(({ received }) => received.length);
      await until("both receive again", () => writers.every(({ received }, n) => received.length > before[n] + 5));
    }
    writing = false;
    const kept = (await Promise.all(written)).flat();
    const { received } = writers[0];
    await until("the last one", () => kept.every((text) => writers.every((writer) => writer.received.includes(text))));
    const last = await writers[0].publish("last");
    assert.equal(last, "ok");
    await until("the end", () => writers.every((writer) => writer.received.at(-1) === "last"));

    // In one order, each once, and all that the server had answered.
    assert.deepEqual(writers[1].received, received);
    assert.equal(new Set(received).size, received.length);
    assert.ok(kept.length > 10, `${kept.length} messages`);
    // Before 1.7 the requests of a long poll overtake each other.
    for (const name of client.overWebSocket || client.can.batchOverLongPoll ? ["ann", "bob"] : []) {
      const numbers = received.filter((text) => text.startsWith(name)).map((text) => Number(text.split(" ")[1]));
      assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b));
    }
    // Each came back by what the server has kept, and never with a gap.
    for (const { arrivals } of writers) {
      assert.equal(arrivals[0], "new");
      assert.ok(arrivals.length > KILLS, arrivals.join(" "));
      assert.deepEqual([...new Set(arrivals.slice(1))], ["recovered"]);
    }
  });

  test("a client that was away while the server was killed receives what the others have written", async (t) => {
    const place = await started(t);
    const topic = unique("log:");
    const [ann, bob] = await Promise.all(["ann", "bob"].map((name) => enter(t, place, client, topic, name)));
    assert.equal(await ann.publish("one"), "ok");
    await until("both have it", () => [ann, bob].every(({ received }) => received.length === 1));
    const reconnect = bob.leaveNetwork();
    assert.equal(await ann.publish("two"), "ok");
    await place.restart();
    await until("the first is back", () => ann.arrivals.length === 2);
    assert.equal(await ann.publish("three"), "ok");
    reconnect();
    await until("the second is back", () => bob.arrivals.length === 2);
    await until("it has all", () => bob.received.length === 3);
    assert.deepEqual(bob.received, ["one", "two", "three"]);
    assert.deepEqual(ann.received, ["one", "two", "three"]);
    assert.deepEqual([ann.arrivals[1], bob.arrivals[1]], ["recovered", "recovered"]);
  });

  test("a file that was removed is a gap", async (t) => {
    const place = await started(t);
    const ann = await enter(t, place, client, unique("log:"), "ann");
    assert.equal(await ann.publish("one"), "ok");
    await until("it has come", () => ann.received.length === 1);
    await place.restart({ empty: true });
    await until("it is back", () => ann.arrivals.length === 2);
    assert.equal(ann.arrivals[1], "gap");
    assert.equal(await ann.publish("two"), "ok");
    await until("it goes on", () => ann.received.at(-1) === "two");
    assert.deepEqual(ann.received, ["one", "two"]);
  });
}

/** A reference application over a file of its own. */
async function started(t) {
  let folder = await mkdtemp(join(tmpdir(), "history-"));
  const folders = [folder];
  const start = (addr) => {
    return startServer(example("reference"), { addr, env: { ENGINE: `sqlite:${join(folder, "history")}`, WINDOW_MS: "500" } });
  };
  let server = await start();
  t.after(async () => {
    await server.kill();
    await Promise.all(folders.map((folder) => rm(folder, { recursive: true })));
  });
  return {
    server,
    /** Kills it, and starts it again at the same address. */
    async restart({ empty = false } = {}) {
      await server.kill();
      if (empty) folders.push((folder = await mkdtemp(join(tmpdir(), "history-"))));
      server = await start(server.host);
    },
  };
}

function enter(t, { server }, client, topic, name) {
  return enterLog(t, { to: server, client, topic, name, keep: keepSession, pauseMs: PAUSE_MS });
}

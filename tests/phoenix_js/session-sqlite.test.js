// What unmodified clients that only say `session=ID` receive of a topic with a history in SQLite whose server is killed and
// started again.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe } from "node:test";
import { setTimeout as passing } from "node:timers/promises";
import { clients, unique } from "./support/client.js";
import { enterLog } from "./support/log.js";
import { example, startServer } from "./support/server.js";
import { test } from "./support/test.js";
import { until } from "./support/until.js";

const KILLS = 5;
const LONGEST_MS = 400; // between two kills
const KNOWN_MS = 1500; // after which a join counts as read
const PAUSE_MS = 5;

for (const client of await clients("phoenix-1.8")) describe(client.name, () => killing(client));

function killing(client) {
  test("two clients that write while the server is killed miss nothing", { timeout: 90_000 }, async (t) => {
    const folder = await mkdtemp(join(tmpdir(), "session-"));
    const start = (addr) => startServer(example("reference"), { addr, env: { ENGINE: `sqlite:${join(folder, "history")}`, WINDOW_MS: "500" } });
    let server = await start();
    t.after(async () => {
      await server.kill();
      await rm(folder, { recursive: true });
    });
    const topic = unique("log:");
    const writers = await Promise.all(["ann", "bob"].map((name) => enterLog(t, { to: server, client, topic, name, params: { session: unique("session-of-a-page-") }, pauseMs: PAUSE_MS })));
    await passing(KNOWN_MS);
    let writing = true;
    const written = writers.map((writer) => writer.write(() => writing));
    for (let kill = 0; kill < KILLS; kill += 1) {
      await passing(Math.random() * LONGEST_MS);
      await server.kill();
      server = await start(server.host);
      const before = writers.map(({ received }) => received.length);
      await until("both receive again", () => writers.every(({ received }, n) => received.length > before[n] + 5));
    }
    writing = false;
    const kept = (await Promise.all(written)).flat();
    assert.ok(kept.length > 10, `${kept.length} messages`);
    assert.equal(await writers[0].publish("last"), "ok");
    await until("the end", () => writers.every(({ received }) => received.includes("last")));

    // Whatever came twice: in one order for both, and all that the server had answered.
    const [ann, bob] = writers.map(({ received }) => [...new Set(received)]);
    assert.deepEqual(bob, ann);
    assert.deepEqual(kept.filter((text) => !ann.includes(text)), []);
    for (const { arrivals } of writers) {
      assert.equal(arrivals[0], "new");
      assert.ok(arrivals.length > KILLS, arrivals.join(" "));
      assert.deepEqual([...new Set(arrivals.slice(1))], ["recovered"]);
    }
  });
}

// What unmodified clients that only say `session=ID` receive of a topic with a history in SQLite whose server is killed and
// started again.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe } from "node:test";
import { setTimeout as passing } from "node:timers/promises";
import { clients, unique } from "./support/client.js";
import { ok, outcome } from "./support/promises.js";
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
    const writers = await Promise.all(["ann", "bob"].map((name) => enter(t, server, client, topic, name)));
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

/** A client in the topic. */
async function enter(t, server, client, topic, name) {
  const params = { user_id: unique(name), session: unique("session-of-a-page-") };
  const socket = client.connect(t, { to: server, params, timeout: 2000 });
  const channel = socket.channel(topic);
  const received = [];
  channel.on("new_msg", ({ text }) => received.push(text));
  const arrivals = [];
  const joining = channel.join();
  joining.receive("ok", ({ arrival }) => arrivals.push(arrival));
  await ok(joining);
  const publish = async (text) => (await outcome(channel.push("publish", { text }, 2000)))[0];
  return {
    received,
    arrivals,
    publish,
    /** Writes for as long as it is told to. Returns what the server has kept, by its answers. */
    async write(isWriting) {
      const kept = [];
      for (let number = 0; isWriting(); number += 1) {
        const text = `${name} ${number}`;
        void publish(text).then((status) => status === "ok" && kept.push(text));
        await passing(PAUSE_MS);
      }
      await passing(2500); // every push has ended
      return kept;
    },
  };
}

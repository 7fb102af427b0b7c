// The main test: two writers whose connections are cut repeatedly, and which are forced onto the other transport,
// receive every message.
import assert from "node:assert/strict";
import { unique } from "../support/client.js";
import { startFaultProxy } from "../support/fault_proxy.js";
import { until } from "../support/until.js";

const SHORT = { messages: 60, kills: 6, withinMs: 30_000 };
const LONG = { messages: 200, kills: 20, withinMs: 90_000 };
const WRITE_EVERY_MS = 20;

export function storm(test, client, member, full) {
  const { messages, kills, withinMs } = full ? LONG : SHORT;

  /** A client that starts on long poll has nothing to be forced onto. */
  const forced = client.overWebSocket && client.can.changeTransport;

  const name = `two writers that are cut repeatedly${forced ? " and forced onto long poll" : ""} receive everything`;

  test(name, { timeout: 5 * withinMs }, async (t) => {
    const proxy = await startFaultProxy(client.server);
    t.after(proxy.stop);
    t.diagnostic(`FAULT_SEED=${proxy.seed}`);
    const topic = unique("room:");
    const observer = await member(t, { to: client.server, topic });
    const through = { to: proxy, topic, longPollFallbackMs: 300 };
    const writers = await Promise.all(["a", "b"].map((user) => member(t, { ...through, user: unique(user) })));

    const stop = writers.map((writer) => write(writer));
    await cut(kills / 2);

    if (forced) {
      await proxy.refuseUpgrades(true);
      await proxy.kill();
      await all("are on long poll", (writer) => writer.isThere() && writer.isOnLongPoll());
    }
    await proxy.truncate({ count: 3, one_in: 5 });
    await cut(kills / 2);
    await proxy.refuseUpgrades(false);
    await all("have written enough", ({ user }) => by(user, observer).length >= messages);
    stop.forEach((end) => end());
    await proxy.truncate({ count: 0 });
    // messages in flight have arrived, at the server and then at the observer
    await all("are answered", (writer) => writer.isAnswered());
    await until("the observer is answered", () => observer.isAnswered());
    await all("have received everything", (writer) => missing(writer).length === 0).finally(report);

    if (!member.kept) return;
    if (forced) await all("are back on WebSocket", (writer) => writer.isThere() && !writer.isOnLongPoll());
    for (const writer of writers) {
      for (const { user } of writers) assert.deepEqual(by(user, writer), by(user, observer));
      assert.deepEqual(writer.received.joined, [{ user_id: writer.user }]);
    }

    function all(what, condition) {
      const both = async () => (await Promise.all(writers.map(condition))).every(Boolean);
      return until(`both ${what}`, both, withinMs);
    }

    function missing({ received }) {
      return observer.received.new_msg.filter((sent) => !received.new_msg.some((message) => same(message, sent)));
    }

    function report() {
      for (const writer of writers) {
        const { length } = observer.received.new_msg;
        const lost = missing(writer).length;
        const twice = writer.received.new_msg.length - (length - lost);
        const { written, user } = writer;
        const handled = by(user, observer).length;
        t.diagnostic(`received ${length - lost} of ${length}, ${twice} of them twice; wrote ${written}, ${handled} arrived`);
        if (lost) t.diagnostic(`lost ${JSON.stringify(missing(writer))}`);
      }
    }

    /** Cuts all connections the given number of times, at moments chosen by the seed. */
    async function cut(times) {
      const before = (await proxy.stats()).kills;
      await proxy.killEvery({ ms: 350, jitter: 200, times });
      await until("all cuts are done", async () => (await proxy.stats()).kills >= before + times);
    }
  });
}

/** Writes until the returned function is called. */
function write(writer) {
  let n = 0;
  const timer = setInterval(() => {
    writer.written = n += 1;
    writer.room.push("new_msg", { user: writer.user, n });
  }, WRITE_EVERY_MS);
  return () => clearInterval(timer);
}

const same = (one, other) => one.user === other.user && one.n === other.n;
const by = (user, { received }) => received.new_msg.filter((sent) => sent.user === user).map(({ n }) => n);

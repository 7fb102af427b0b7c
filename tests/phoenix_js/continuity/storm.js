// The main test: two writers whose connections are cut repeatedly, and which are forced onto the other transport,
// receive every message; and with `keepSession` everything that they write arrives.
import assert from "node:assert/strict";
import { unique } from "../support/client.js";
import { startFaultProxy } from "../support/fault_proxy.js";
import { until } from "../support/until.js";
import { by, missing, repeated, upTo, write } from "./writers.js";

const SHORT = { messages: 60, kills: 6, withinMs: 30_000 };
const LONG = { messages: 200, kills: 20, withinMs: 90_000 };

export function storm(test, client, member, full) {
  const { messages, kills, withinMs } = full ? LONG : SHORT;

  /** A client that starts on long poll has nothing to be forced onto. */
  const forced = client.overWebSocket && client.can.changeTransport;
  const isOrdered = client.can.batchOverLongPoll; // before 1.7 the POSTs of a long poll overtake each other

  const subject = `two writers that are cut repeatedly${forced ? " and forced onto long poll" : ""}`;
  const name = `${subject} receive everything${member.kept ? ", and everything that they write arrives once" : ""}`;

  test(name, { timeout: 5 * withinMs }, async (t) => {
    const proxy = await startFaultProxy(client.server);
    t.after(proxy.stop);
    t.diagnostic(`FAULT_SEED=${proxy.seed}`);
    const topic = unique("room:");
    const observer = await member(t, { to: client.server, topic });
    const through = { to: proxy, topic, longPollFallbackMs: 300 };
    const writers = await Promise.all(["a", "b"].map((user) => member(t, { ...through, user: unique(user) })));

    const heard = observer.received.new_msg;
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
    await all("have written enough", ({ user }) => by(user, heard).length >= messages);
    stop.forEach((end) => end());
    await proxy.truncate({ count: 0 });
    // messages in flight have arrived, at the server and then at the observer
    await all("are answered", (writer) => writer.isAnswered());
    if (member.kept) await all("have been heard", ({ user, written }) => by(user, heard).length >= written);
    await until("the observer is answered", () => observer.isAnswered());
    await all("have received everything", (writer) => missing(heard, writer.received.new_msg).length === 0).finally(report);

    if (!member.kept) return;
    if (forced) await all("are back on WebSocket", (writer) => writer.isThere() && !writer.isOnLongPoll());
    for (const writer of writers) {
      for (const { user } of writers) assert.deepEqual(by(user, writer.received.new_msg), by(user, heard));
      assert.deepEqual(writer.received.joined, [{ user_id: writer.user }]);
      const arrived = by(writer.user, heard);
      if (!isOrdered) arrived.sort((a, b) => a - b);
      assert.deepEqual(arrived, upTo(writer.written));
      assert.deepEqual([await Promise.all(writer.answers), writer.unsent], [writer.answers.map(() => "ok"), []]);
    }

    function all(what, condition) {
      const both = async () => (await Promise.all(writers.map(condition))).every(Boolean);
      return until(`both ${what}`, both, withinMs);
    }

    function report() {
      for (const { user, received, written, unsent } of writers) {
        const lost = missing(heard, received.new_msg);
        const arrived = by(user, heard);
        t.diagnostic(`received ${heard.length - lost.length} of ${heard.length}, ${repeated(received.new_msg).length} of them twice`);
        t.diagnostic(`wrote ${written}, ${arrived.length} arrived, ${arrived.length - new Set(arrived).size} of them twice; ${unsent.length} given up`);
        if (lost.length) t.diagnostic(`lost ${JSON.stringify(lost)}`);
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

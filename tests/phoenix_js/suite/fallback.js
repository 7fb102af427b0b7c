// `longPollFallbackMs`: the client falls back to long poll by itself where WebSocket does not work.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { Storage, unique } from "../support/client.js";
import { next, ok, outcome } from "../support/promises.js";
import { startProxy } from "../support/proxy.js";
import { test } from "../support/test.js";

const FALLBACK_MS = 300;

export function fallback(client) {
  const { LongPoll } = client.phoenix;

  describe("to long poll", { skip: !client.can.fallBack && "this version does not fall back" }, () => {
    for (const [upgrades, how] of [
      ["refuse", "upgrades are refused"],
      ["stall", "upgrades are never answered"],
      ["mute", "a WebSocket opens and then receives nothing"],
    ]) {
      test(`a channel is joined although ${how}`, async (t) => {
        const proxy = await startProxy(client.server, { upgrades });
        t.after(() => proxy.stop());
        const socket = client.connect(t, { to: proxy, longPollFallbackMs: FALLBACK_MS });
        const room = socket.channel(unique("room:"));
        const joined = next(room, "joined");
        room.join();
        await joined;
        assert.equal(socket.transport, LongPoll);
        assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
      });
    }

    test("the page's next socket starts on long poll", async (t) => {
      const proxy = await startProxy(client.server, { upgrades: "refuse" });
      t.after(() => proxy.stop());
      const options = { to: proxy, longPollFallbackMs: FALLBACK_MS, sessionStorage: new Storage() };
      await ok(client.connect(t, options).channel(unique("room:")).join());

      proxy.upgrades = "pass";
      const next = client.connect(t, options);
      await ok(next.channel(unique("room:")).join());
      assert.deepEqual([next.transport, proxy.upgraded], [LongPoll, 0]);
    });

    test("a socket does not fall back while its WebSocket works", async (t) => {
      const proxy = await startProxy(client.server);
      t.after(() => proxy.stop());
      const socket = client.connect(t, { to: proxy, longPollFallbackMs: FALLBACK_MS });
      const room = socket.channel(unique("room:"));
      await ok(room.join());
      assert.deepEqual(await outcome(room.push("slow", { ms: 2 * FALLBACK_MS })), ["ok", { ms: 2 * FALLBACK_MS }]);
      assert.notEqual(socket.transport, LongPoll);
    });
  });
}

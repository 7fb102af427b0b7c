// ArrayBuffers as payloads. Over long poll they can be sent; plain phoenix.js cannot receive them there.
import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { unique } from "../support/client.js";
import { collect, next, ok, outcome } from "../support/promises.js";
import { test } from "../support/test.js";

const BYTES = Uint8Array.from({ length: 300 }, (_, n) => n % 256);

export function binary(client) {
  const overWebSocket = client.overWebSocket ? test : () => {};
  const up = { skip: !client.overWebSocket && !client.can.binaryUpOverLongPoll && "not supported by this version" };

  overWebSocket("a binary push is answered in binary", async (t) => {
    const room = await join(t);
    const [status, response] = await outcome(room.push("ping", BYTES.buffer));
    assert.deepEqual([status, new Uint8Array(response)], ["ok", BYTES]);
  });

  overWebSocket("an error reply can be binary", async (t) => {
    const room = await join(t);
    const [status, response] = await outcome(room.push("fail", BYTES.buffer));
    assert.deepEqual([status, new Uint8Array(response)], ["error", BYTES]);
  });

  overWebSocket("an empty binary payload stays binary", async (t) => {
    const room = await join(t);
    assert.deepEqual(await outcome(room.push("ping", new ArrayBuffer(0))), ["ok", new ArrayBuffer(0)]);
  });

  overWebSocket("the channel can push a binary payload back", async (t) => {
    const room = await join(t);
    const pushed = next(room, "pushed");
    room.push("push_me", BYTES.buffer);
    assert.deepEqual(new Uint8Array(await pushed), BYTES);
  });

  test("a binary push can be answered in text", up, async (t) => {
    const room = await join(t);
    assert.deepEqual(await outcome(room.push("ack", BYTES.buffer)), ["ok", {}]);
  });

  test("a binary broadcast reaches a WebSocket", up, async (t) => {
    const sender = await join(t);
    const listener = await join(t, { topic: sender.topic, transport: WebSocket });
    const received = next(listener, "new_msg");
    sender.push("new_msg", BYTES.buffer);
    assert.deepEqual(new Uint8Array(await received), BYTES);
  });

  test("a long-poll client misses a binary broadcast and nothing else", async (t) => {
    const sender = await join(t, { transport: WebSocket });
    const listener = await join(t, { topic: sender.topic, transport: client.phoenix.LongPoll });
    const received = collect(listener, "new_msg");
    const last = next(listener, "typing");
    sender.push("new_msg", { n: 1 });
    sender.push("new_msg", BYTES.buffer);
    sender.push("new_msg", { n: 2 });
    sender.push("typing");
    await last;
    assert.deepEqual(received, [{ n: 1 }, { n: 2 }]);
  });

  async function join(t, { topic = unique("room:"), ...options } = {}) {
    const room = client.connect(t, options).channel(topic);
    await ok(room.join());
    return room;
  }
}

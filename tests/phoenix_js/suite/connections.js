// Opening, rejecting, keeping alive and closing sockets.
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { setTimeout as passing } from "node:timers/promises";
import { unique } from "../support/client.js";
import { called, collect, next, ok, outcome } from "../support/promises.js";
import { example, startServer } from "../support/server.js";
import { test } from "../support/test.js";

export function connections(client) {
  const overWebSocket = client.overWebSocket ? test : () => {};
  const overLongPoll = client.overWebSocket ? () => {} : test;

  test("a socket that `connect` accepts opens", async (t) => {
    const socket = client.socket(t);
    const opened = called((f) => socket.onOpen(f));
    socket.connect();
    await opened;
    assert.equal(socket.connectionState(), "open");
  });

  test("a socket that `connect` rejects gets an error and joins nothing", async (t) => {
    const socket = client.socket(t, { params: { reject: "true" }, reconnectAfterMs: () => 60_000 });
    const opened = [];
    socket.onOpen(() => opened.push("open"));
    const error = called((f) => socket.onError(f));
    const closed = called((f) => socket.onClose(f));
    const room = socket.channel(unique("room:"));
    room.join();
    socket.connect();
    await Promise.all([error, closed]);
    assert.deepEqual([opened, room.state], [[], "errored"]);
  });

  test("parameters can be computed anew for each connection", async (t) => {
    const users = [unique("first"), unique("second")];
    const calls = [...users];
    // phoenix.js calls it twice while a logger is set, otherwise once per connection
    const room = client.connect(t, { params: () => ({ user_id: calls.shift() }) }).channel(unique("room:"));
    const first = next(room, "joined");
    room.join();
    assert.deepEqual(await first, { user_id: users[0] });

    const second = next(room, "joined");
    room.socket.disconnect(() => room.socket.connect());
    assert.deepEqual(await second, { user_id: users[1] });
  });

  test("a ping is answered", async (t) => {
    const socket = client.socket(t);
    const opened = called((f) => socket.onOpen(f));
    socket.connect();
    await opened;
    const milliseconds = await called((f) => socket.ping(f));
    assert.ok(milliseconds >= 0 && milliseconds < 1000, `${milliseconds} ms`);
  });

  test("a late reply does not delay the heartbeat", async (t) => {
    const socket = client.connect(t);
    const room = socket.channel(unique("room:"));
    await ok(room.join());
    const slow = ok(room.push("slow", { ms: 300 }));
    const first = await Promise.race([slow.then(() => "slow"), called((f) => socket.ping(() => f("ping")))]);
    assert.equal(first, "ping");
  });

  test("a socket that disconnects and reconnects rejoins its channels", async (t) => {
    const socket = client.connect(t);
    const room = socket.channel(unique("room:"));
    await ok(room.join());
    const again = next(room, "joined");
    socket.disconnect(() => socket.connect());
    await again;
    assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
  });

  overWebSocket("a client without an auth token is offered no subprotocol", async (t) => {
    const socket = client.socket(t);
    const opened = called((f) => socket.onOpen(f));
    socket.connect();
    await opened;
    assert.equal(socket.conn.protocol, "");
  });

  describe("with an auth token", { skip: !client.can.sendAuthToken && "not supported by this version" }, () => {
    const authToken = "a secret with =, / and +";

    test("a channel works", async (t) => {
      const room = client.connect(t, { authToken }).channel(unique("room:"));
      await ok(room.join());
      assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
    });

    overWebSocket("the server selects the subprotocol without echoing the token", async (t) => {
      const socket = client.socket(t, { authToken });
      const opened = called((f) => socket.onOpen(f));
      socket.connect();
      await opened;
      assert.equal(socket.conn.protocol, "phoenix");
    });
  });

  overWebSocket("a custom encoder and decoder can use serializer 1.0.0", async (t) => {
    const socket = client.connect(t, {
      vsn: "1.0.0",
      encode: (message, done) => done(JSON.stringify(message)),
      decode: (text, done) => done(JSON.parse(text)),
    });
    const room = socket.channel(unique("room:"));
    const received = next(room, "new_msg");
    await ok(room.join());
    room.push("new_msg", { n: 1 });
    assert.deepEqual([await received, await outcome(room.push("fail", { n: 2 }))], [{ n: 1 }, ["error", { n: 2 }]]);
  });

  describe("with timeouts of a third of a second", () => {
    const TIMEOUT_MS = 300;
    let shortTimeouts;
    before(async () => {
      shortTimeouts = await startServer(example("reference"), { env: { IDLE_MS: TIMEOUT_MS, WINDOW_MS: TIMEOUT_MS } });
    });
    after(() => shortTimeouts.stop());

    overWebSocket("an idle WebSocket is closed and reconnects", async (t) => {
      const socket = client.connect(t, { to: shortTimeouts });
      const room = socket.channel(unique("room:"));
      await ok(room.join());
      const closed = called((f) => socket.onClose(f));
      const again = next(room, "joined");
      assert.equal((await closed).code, 1002);
      await again;
    });

    overWebSocket("heartbeats keep a WebSocket open", async (t) => {
      const socket = client.connect(t, { to: shortTimeouts, heartbeatIntervalMs: TIMEOUT_MS / 3 });
      const closes = [];
      socket.onClose((event) => closes.push(event.code));
      const room = socket.channel(unique("room:"));
      await ok(room.join());
      await passing(3 * TIMEOUT_MS);
      assert.deepEqual([closes, await outcome(room.push("ping"))], [[], ["ok", {}]]);
    });

    overLongPoll("a long poll stays connected while nothing happens", async (t) => {
      const socket = client.connect(t, { to: shortTimeouts });
      const closes = [];
      socket.onClose((event) => closes.push(event.code));
      const room = socket.channel(unique("room:"));
      await ok(room.join());
      const joins = collect(room, "joined");
      await passing(3 * TIMEOUT_MS);
      const news = next(room, "news");
      await shortTimeouts.post("/broadcast", { topic: room.topic, event: "news", payload: { late: true } });
      assert.deepEqual([await news, closes, joins.length <= 1], [{ late: true }, [], true]);
    });
  });
}

// How a socket is opened, refused, kept and closed.
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

  test("a socket that connect accepts is open", async (t) => {
    const socket = client.socket(t);
    const opened = called((f) => socket.onOpen(f));
    socket.connect();
    await opened;
    assert.equal(socket.connectionState(), "open");
  });

  test("a socket that connect refuses gets an error and joins nothing", async (t) => {
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

  test("parameters can be made afresh for each connection", async (t) => {
    const users = [unique("first"), unique("second")];
    const calls = [...users];
    // phoenix.js asks twice while a logger is set, else once for each connection
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

  test("a late reply does not hold up the heartbeat", async (t) => {
    const socket = client.connect(t);
    const room = socket.channel(unique("room:"));
    await ok(room.join());
    const slow = ok(room.push("slow", { ms: 300 }));
    const first = await Promise.race([slow.then(() => "slow"), called((f) => socket.ping(() => f("ping")))]);
    assert.equal(first, "ping");
  });

  test("a socket that disconnects and connects joins its channels again", async (t) => {
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

  describe("with an auth token", { skip: !client.can.sendAuthToken && "this version has none" }, () => {
    const authToken = "a secret with =, / and +";

    test("a channel works", async (t) => {
      const room = client.connect(t, { authToken }).channel(unique("room:"));
      await ok(room.join());
      assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
    });

    overWebSocket("the subprotocol is answered and the token is not repeated", async (t) => {
      const socket = client.socket(t, { authToken });
      const opened = called((f) => socket.onOpen(f));
      socket.connect();
      await opened;
      assert.equal(socket.conn.protocol, "phoenix");
    });
  });

  overWebSocket("the client's own encoding can be serializer 1.0.0", async (t) => {
    const socket = client.connect(t, {
      vsn: "1.0.0",
      encode: (message, done) => done(JSON.stringify(message)),
      decode: (text, done) => done(JSON.parse(text)),
    });
    const room = socket.channel(unique("room:"));
    const heard = next(room, "new_msg");
    await ok(room.join());
    room.push("new_msg", { n: 1 });
    assert.deepEqual([await heard, await outcome(room.push("fail", { n: 2 }))], [{ n: 1 }, ["error", { n: 2 }]]);
  });

  describe("where a third of a second is a long time", () => {
    const LONG_MS = 300;
    let impatient;
    before(async () => {
      impatient = await startServer(example("reference"), { env: { IDLE_MS: LONG_MS, WINDOW_MS: LONG_MS } });
    });
    after(() => impatient.stop());

    overWebSocket("a silent WebSocket is closed and comes back", async (t) => {
      const socket = client.connect(t, { to: impatient });
      const room = socket.channel(unique("room:"));
      await ok(room.join());
      const closed = called((f) => socket.onClose(f));
      const again = next(room, "joined");
      assert.equal((await closed).code, 1002);
      await again;
    });

    overWebSocket("heartbeats keep a WebSocket open", async (t) => {
      const socket = client.connect(t, { to: impatient, heartbeatIntervalMs: LONG_MS / 3 });
      const closes = [];
      socket.onClose((event) => closes.push(event.code));
      const room = socket.channel(unique("room:"));
      await ok(room.join());
      await passing(3 * LONG_MS);
      assert.deepEqual([closes, await outcome(room.push("ping"))], [[], ["ok", {}]]);
    });

    overLongPoll("polls follow one another while nothing happens", async (t) => {
      const socket = client.connect(t, { to: impatient });
      const closes = [];
      socket.onClose((event) => closes.push(event.code));
      const room = socket.channel(unique("room:"));
      await ok(room.join());
      const joins = collect(room, "joined");
      await passing(3 * LONG_MS);
      const news = next(room, "news");
      await impatient.post("/broadcast", { topic: room.topic, event: "news", payload: { late: true } });
      assert.deepEqual([await news, closes, joins.length <= 1], [{ late: true }, [], true]);
    });
  });
}

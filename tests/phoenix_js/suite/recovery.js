// Unexpected ends of a connection, from which the client recovers by itself.
import assert from "node:assert/strict";
import { unique } from "../support/client.js";
import { called, next, ok, outcome } from "../support/promises.js";
import { startProxy } from "../support/proxy.js";
import { example, startServer } from "../support/server.js";
import { test } from "../support/test.js";

const SHORT_TIMEOUTS = { heartbeatIntervalMs: 150, longpollerTimeout: 600 };

export function recovery(client) {
  test("a socket disconnected by id reconnects and rejoins", async (t) => {
    const user = unique("user");
    const { socket, room } = await join(t, { params: { user_id: user } });
    const closed = called((f) => socket.onClose(f));
    const again = next(room, "joined");
    await disconnect(user);
    const { code } = await closed;
    if (client.overWebSocket) assert.equal(code, 1001);
    assert.deepEqual(await again, { user_id: user });
    assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
  });

  test("a disconnect by id does not affect other sockets", async (t) => {
    const user = unique("user");
    const [one, other] = await Promise.all([join(t, { params: { user_id: user } }), join(t, {})]);
    const closes = [];
    other.socket.onClose((event) => closes.push(event.code));
    const ended = called((f) => one.socket.onClose(f));
    await disconnect(user);
    await ended;
    assert.deepEqual([await outcome(other.room.push("ping")), closes], [["ok", {}], []]);
  });

  test("a client whose connection is cut reconnects and rejoins", async (t) => {
    const proxy = await through(t);
    const { room } = await join(t, { to: proxy });
    const again = next(room, "joined");
    await untilNoticed(room, proxy.cut);
    await again;
    assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
  });

  test("a client gives up a connection that falls silent, and reconnects", async (t) => {
    const server = await startServer(example("reference"), { env: { WINDOW_MS: 200 } });
    t.after(() => server.stop());
    const proxy = await through(t, server);
    const { room } = await join(t, { to: proxy, ...SHORT_TIMEOUTS });
    const again = next(room, "joined");
    await untilNoticed(room, proxy.silence);
    await again;
    assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
  });

  test("all channels rejoin after a server restart", async (t) => {
    const server = await startServer(example("reference"));
    const { socket, room } = await join(t, { to: server });
    const other = socket.channel(unique("room:"));
    await ok(other.join());
    const again = Promise.all([next(room, "joined"), next(other, "joined")]);
    assert.equal(await server.stop(), 0);

    const restarted = await startServer(example("reference"), { addr: server.host });
    t.after(() => restarted.stop());
    await again;
    assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
  });

  test("a member that reconnects receives each broadcast once", async (t) => {
    const proxy = await through(t);
    const { room } = await join(t, { to: proxy });
    const received = [];
    room.on("news", ({ n }) => received.push(n));
    for (const n of [1, 2, 3]) {
      const again = next(room, "joined");
      await untilNoticed(room, proxy.cut);
      await again;
      const news = next(room, "news");
      await client.server.post("/broadcast", { topic: room.topic, event: "news", payload: { n } });
      await news;
    }
    await ok(room.push("ping"));
    assert.deepEqual(received, [1, 2, 3]);
  });

  const disconnect = (user) => client.server.post(`/disconnect?id=user_socket:${user}`);

  async function through(t, server = client.server) {
    const proxy = await startProxy(server);
    t.after(() => proxy.stop());
    return proxy;
  }

  /** Repeats a fault until the client notices; between two polls there is no connection to break. */
  async function untilNoticed(room, fault) {
    const noticed = called((f) => room.onError(f));
    const again = setInterval(fault, 20);
    fault();
    await noticed;
    clearInterval(again);
  }

  async function join(t, options) {
    const socket = client.connect(t, options);
    const room = socket.channel(unique("room:"));
    const joined = next(room, "joined");
    await ok(room.join());
    await joined;
    return { socket, room };
  }
}

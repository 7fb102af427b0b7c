// Connections that end although nobody wanted it: the client comes back by itself, and the server lets it.
import assert from "node:assert/strict";
import { unique } from "../support/client.js";
import { called, next, ok, outcome } from "../support/promises.js";
import { startProxy } from "../support/proxy.js";
import { example, startServer } from "../support/server.js";
import { test } from "../support/test.js";

const IMPATIENT = { heartbeatIntervalMs: 150, longpollerTimeout: 600 };

export function recovery(client) {
  const notices = { skip: !client.overWebSocket && !client.can.noticeAnEndedPoll && "this version does not notice" };
  const doesNot = { skip: (client.overWebSocket || client.can.noticeAnEndedPoll) && "this version notices" };

  test("a socket disconnected by its id comes back and joins again", notices, async (t) => {
    const user = unique("user");
    const { socket, room } = await join(t, { params: { user_id: user } });
    const closed = called((f) => socket.onClose(f));
    const again = next(room, "joined");
    await disconnect(user);
    assert.equal((await closed).code, client.overWebSocket ? 1001 : 3410);
    assert.deepEqual(await again, { user_id: user });
    assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
  });

  test("a socket disconnected by its id can join afresh", doesNot, async (t) => {
    const user = unique("user");
    const { socket } = await join(t, { params: { user_id: user } });
    const opened = called((f) => socket.onOpen(f));
    await disconnect(user);
    await opened;
    const room = socket.channel(unique("room:"));
    assert.deepEqual(await outcome(room.join()), ["ok", {}]);
  });

  test("a disconnect by id touches no other socket", async (t) => {
    const user = unique("user");
    const [one, other] = await Promise.all([join(t, { params: { user_id: user } }), join(t, {})]);
    const closes = [];
    other.socket.onClose((event) => closes.push(event.code));
    const ended = called((f) => (client.can.noticeAnEndedPoll ? one.socket.onClose(f) : one.socket.onOpen(f)));
    await disconnect(user);
    await ended;
    assert.deepEqual([await outcome(other.room.push("ping")), closes], [["ok", {}], []]);
  });

  test("a connection that is cut comes back and joins again", async (t) => {
    const proxy = await through(t);
    const { room } = await join(t, { to: proxy });
    const again = next(room, "joined");
    await untilNoticed(room, proxy.cut);
    await again;
    assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
  });

  test("a connection that falls silent is given up and comes back", async (t) => {
    const server = await startServer(example("reference"), { env: { WINDOW_MS: 200 } });
    t.after(() => server.stop());
    const proxy = await through(t, server);
    const { room } = await join(t, { to: proxy, ...IMPATIENT });
    const again = next(room, "joined");
    await untilNoticed(room, proxy.silence);
    await again;
    assert.deepEqual(await outcome(room.push("ping", { n: 1 })), ["ok", { n: 1 }]);
  });

  test("a restarted server gets all channels back", async (t) => {
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

  test("a member that comes back hears each broadcast once", async (t) => {
    const proxy = await through(t);
    const { room } = await join(t, { to: proxy });
    const heard = [];
    room.on("news", ({ n }) => heard.push(n));
    for (const n of [1, 2, 3]) {
      const again = next(room, "joined");
      await untilNoticed(room, proxy.cut);
      await again;
      const news = next(room, "news");
      await client.server.post("/broadcast", { topic: room.topic, event: "news", payload: { n } });
      await news;
    }
    await ok(room.push("ping"));
    assert.deepEqual(heard, [1, 2, 3]);
  });

  const disconnect = (user) => client.server.post(`/disconnect?id=user_socket:${user}`);

  async function through(t, server = client.server) {
    const proxy = await startProxy(server);
    t.after(() => proxy.stop());
    return proxy;
  }

  /** Does harm again and again until the client notices: between two polls there is nothing to be harmed. */
  async function untilNoticed(room, harm) {
    const noticed = called((f) => room.onError(f));
    const again = setInterval(harm, 20);
    harm();
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

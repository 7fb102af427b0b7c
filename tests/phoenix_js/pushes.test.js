// What `keepSession` does with pushes whose connection is lost, with each version of phoenix.js, against a scripted
// server.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { keepSession } from "../../client/index.js";
import { clients } from "./support/client.js";
import { ok, outcome } from "./support/promises.js";
import { startScripted } from "./support/scripted.js";
import { test } from "./support/test.js";
import { until } from "./support/until.js";

const TOPIC = "room:1";
const SHORT_MS = 100;
const is = (...events) => ([, , , event]) => events.includes(event);

for (const version of ["phoenix-1.6", "phoenix-1.7", "phoenix-1.8.0", "phoenix-1.8"]) {
  for (const client of await clients(version)) describe(client.name, () => keeping(client));
}

function keeping(client) {
  test("pushes that were lost are sent again after the rejoin, in order and before new ones", async (t) => {
    const { server, room } = await joined(t);
    server.loses = is("one", "two");
    const pushes = ["one", "two"].map((event) => room.push(event, { event }));
    await lost(server);
    pushes.push(room.push("three", { event: "three" }));
    await Promise.all(pushes.map(ok));
    const sent = server.messages.map(({ message }) => message).filter(is("phx_join", "one", "two", "three"));
    const [[first], [second]] = sent.filter(is("phx_join"));
    assert.notEqual(first, second);
    const order = client.can.batchOverLongPoll || client.overWebSocket ? (events) => events : (events) => events.sort();
    assert.deepEqual(order(sent.slice(2).map(([, , , event]) => event)), order(["one", "two", "three"]));
    assert.deepEqual(sent.slice(2).map(([joinRef, , , event, payload]) => [joinRef, payload.event === event]), [
      [second, true],
      [second, true],
      [second, true],
    ]);
    assert.equal(new Set(sent.map(([, ref]) => ref)).size, 5);
  });

  test("a push that was handled is not sent again, and waits for its reply", async (t) => {
    const { server, room } = await joined(t);
    server.ignores = is("one");
    const push = room.push("one", {});
    await until("it has arrived", () => of(server, "one").length === 1);
    await reconnected(server, room);
    await ok(room.push("two", {}));
    assert.equal(of(server, "one").length, 1);
    const [[, ref]] = of(server, "one");
    server.send(JSON.stringify([null, ref, TOPIC, "phx_reply", { status: "ok", response: { late: true } }]));
    assert.deepEqual(await ok(push), { late: true });
  });

  test("a push that was answered is not sent again", async (t) => {
    const { server, room } = await joined(t);
    await ok(room.push("one", {}));
    server.forget();
    await reconnected(server, room);
    await ok(room.push("two", {}));
    assert.equal(of(server, "one").length, 1);
  });

  test("a push of a session that another one has replaced is reported, and not sent again", async (t) => {
    const { server, room, unsent } = await joined(t);
    server.ignores = is("one");
    room.push("one", {});
    await until("it has arrived", () => of(server, "one").length === 1);
    server.replace();
    await reconnected(server, room);
    server.loses = is("two");
    const push = room.push("two", {});
    await lost(server);
    await ok(push);
    assert.deepEqual(unsent.map(({ event, reason }) => [event, reason]), [["one", "session"]]);
    assert.equal(of(server, "one").length, 1);
  });

  if (client.overWebSocket || client.can.binaryUpOverLongPoll) {
    test("a binary push is sent again", async (t) => {
      const { server, room } = await joined(t);
      server.loses = is("one");
      const push = room.push("one", new TextEncoder().encode("bytes").buffer);
      await lost(server);
      await ok(push);
      const [, [joinRef]] = of(server, "phx_join");
      const [[, ref]] = of(server, "one");
      assert.deepEqual(of(server, "one"), [[joinRef, ref, TOPIC, "one", "bytes"]]);
    });
  }

  test("a push of protocol version 1 is sent again", async (t) => {
    const encode = (message, done) => done(JSON.stringify(message));
    const decode = (text, done) => {
      const message = JSON.parse(text);
      const [join_ref, ref, topic, event, payload] = Array.isArray(message) ? message : [];
      done(Array.isArray(message) ? { join_ref, ref, topic, event, payload } : message);
    };
    const { server, room } = await joined(t, { vsn: "1.0.0", encode, decode });
    server.loses = is("one");
    const push = room.push("one", { n: 1 });
    await lost(server);
    await ok(push);
    const [, [joinRef]] = of(server, "phx_join");
    assert.deepEqual(of(server, "one").map(([joinRef, , , , payload]) => [joinRef, payload]), [[joinRef, { n: 1 }]]);
  });

  test("a topic that is rejoined late gets its pushes, and not those of another", async (t) => {
    const { server, socket, room } = await joined(t);
    const late = socket.channel("room:2");
    await ok(late.join());
    const rejoin = late.rejoin.bind(late);
    late.rejoin = () => {};
    server.loses = is("one");
    const pushes = [late.push("one", {}), room.push("one", {})];
    await lost(server);
    await ok(pushes[1]);
    assert.deepEqual(of(server, "one").map(([, , topic]) => topic), [TOPIC]);
    rejoin();
    await ok(pushes[0]);
    assert.deepEqual(of(server, "one").map(([, , topic]) => topic), [TOPIC, "room:2"]);
  });

  test("a push whose time-out has passed is reported, and not sent again", async (t) => {
    const { server, room, unsent } = await joined(t);
    server.loses = is("one");
    const push = outcome(room.push("one", { n: 1 }, SHORT_MS));
    assert.equal((await push)[0], "timeout");
    assert.deepEqual(unsent, [], "nobody knows yet");
    await reconnected(server, room);
    await until("it was reported", () => unsent.length > 0);
    assert.deepEqual(unsent.map(({ ref, ...push }) => push), [
      { topic: TOPIC, event: "one", payload: { n: 1 }, reason: "timeout" },
    ]);
    server.loses = () => false;
    await ok(room.push("two", {}));
    assert.deepEqual(of(server, "one"), []);
  });

  test("a push whose time-out has passed is sent again if the application wants it", async (t) => {
    const asked = [];
    const sendAgain = ({ event, reason }) => asked.push([event, reason]) > 0;
    const { server, room, unsent } = await joined(t, { sendAgain });
    server.loses = is("one");
    await outcome(room.push("one", {}, SHORT_MS));
    server.loses = () => false;
    await reconnected(server, room);
    await until("it has arrived", () => of(server, "one").length === 1);
    assert.deepEqual([asked, unsent], [[["one", "timeout"]], []]);
  });

  test("a push that times out although it was handled is not reported", async (t) => {
    const { server, room, unsent } = await joined(t);
    server.ignores = is("one");
    await outcome(room.push("one", {}, SHORT_MS));
    await reconnected(server, room);
    await ok(room.push("two", {}));
    assert.deepEqual([unsent, of(server, "one").length], [[], 1]);
  });

  test("a push that times out before it is sent is reported", async (t) => {
    const { server, room, unsent } = await joined(t);
    server.loses = is("phx_join");
    await lost(server, is("phx_join"));
    await outcome(room.push("one", {}, SHORT_MS));
    await until("it was reported", () => unsent.length === 1);
    assert.deepEqual(unsent.map(({ event, reason }) => [event, reason]), [["one", "timeout"]]);
  });

  test("a push is not sent again to a session that is not its own", async (t) => {
    const { server, room, unsent } = await joined(t);
    server.loses = is("one");
    room.push("one", { n: 1 });
    server.forget();
    await reconnected(server, room);
    server.loses = () => false;
    await ok(room.push("two", {}));
    assert.deepEqual(unsent.map(({ event, payload, reason }) => [event, payload, reason]), [["one", { n: 1 }, "session"]]);
    assert.deepEqual(of(server, "one"), []);
  });

  test("a push is sent again to a new session if the application wants it", async (t) => {
    const { server, room, unsent } = await joined(t, { sendAgain: ({ event }) => event === "one" });
    server.loses = is("one", "two");
    const push = room.push("one", {});
    room.push("two", {});
    server.forget();
    await lost(server);
    await ok(push);
    assert.deepEqual(unsent.map(({ event }) => event), ["two"]);
    assert.deepEqual([of(server, "one").length, of(server, "two").length], [1, 0]);
  });

  test("a push is reported when the next session tracks none", async (t) => {
    const { server, room, unsent } = await joined(t);
    server.loses = is("one");
    room.push("one", {});
    server.tracks = false;
    await reconnected(server, room);
    await until("it was reported", () => unsent.length === 1);
    assert.deepEqual(unsent.map(({ event, reason }) => [event, reason]), [["one", "session"]]);
  });

  test("a push of a channel that was left is reported if it was not handled", async (t) => {
    const { server, socket, room, unsent } = await joined(t);
    const other = socket.channel("room:2");
    await ok(other.join());
    server.loses = is("one");
    server.ignores = is("two");
    other.push("one", {});
    other.push("two", {});
    await until("it has arrived", () => of(server, "two").length === 1);
    await ok(other.leave());
    await reconnected(server, room);
    await until("it was reported", () => unsent.length === 1);
    assert.deepEqual(unsent.map(({ event, reason }) => [event, reason]), [["one", "left"]]);
  });

  test("nothing is kept, reported or asked where no session tracks pushes", async (t) => {
    const { server, room, unsent } = await joined(t, { tracks: false });
    server.loses = is("one");
    for (let n = 0; n < 600; n += 1) room.push("one", {});
    await reconnected(server, room);
    server.loses = () => false;
    await ok(room.push("two", {}));
    assert.deepEqual([of(server, "one"), of(server, "handled"), unsent], [[], [], []]);
  });

  test("the server is asked what it has handled before too much is kept", async (t) => {
    const { server, room, unsent } = await joined(t);
    server.ignores = is("one");
    for (let round = 0; round < 4; round += 1) {
      for (let n = 0; n < 600; n += 1) room.push("one", {});
      await until("they have arrived", () => of(server, "one").length === 600 * (round + 1));
      await ok(room.push("two", {}));
    }
    assert.ok(of(server, "handled").length > 0);
    assert.deepEqual(unsent, []);
  });

  test("over the bounds the oldest pushes are given up", async (t) => {
    const { server, room, unsent } = await joined(t);
    server.loses = is("one", "handled");
    for (let n = 0; n < 1030; n += 1) room.push("one", { n });
    await until("some were reported", () => unsent.length > 0);
    const given = unsent.map(({ payload, reason }) => [payload.n, reason]);
    assert.deepEqual(given, [0, 1, 2, 3, 4, 5].map((n) => [n, "overflow"]));
    room.push("one", { large: "x".repeat(2 ** 21) });
    await until("the others were reported", () => unsent.length === 1030);
  });

  test("what a callback of the application throws disturbs nothing", async (t) => {
    const errors = [];
    const catchError = (error) => errors.push(error.message);
    const others = process.listeners("uncaughtException");
    process.removeAllListeners("uncaughtException");
    process.on("uncaughtException", catchError);
    t.after(() => {
      process.removeListener("uncaughtException", catchError);
      others.forEach((listener) => process.on("uncaughtException", listener));
    });
    const fail = (what) => () => {
      throw new Error(what);
    };
    const { server, room } = await joined(t, { sendAgain: fail("sendAgain"), onUnsent: fail("onUnsent") });
    server.loses = is("one");
    room.push("one", {});
    server.forget();
    await reconnected(server, room);
    await ok(room.push("two", {}));
    assert.deepEqual(errors, ["sendAgain", "onUnsent"]);
  });

  async function joined(t, { tracks = true, ...options } = {}) {
    const server = await startScripted();
    t.after(server.stop);
    server.tracks = tracks;
    const unsent = [];
    const onUnsent = (pushes) => unsent.push(...pushes);
    const keep = (defaults) => keepSession({ onUnsent, ...defaults });
    const socket = client.connect(t, { to: server, keep, ...options });
    const room = socket.channel(TOPIC);
    await ok(room.join());
    return { server, socket, room, unsent };
  }

  /** The messages of an event that have arrived. */
  function of(server, event) {
    return server.messages.map(({ message }) => message).filter(is(event));
  }

  /** Cuts the connection once what was sent is gone, and loses nothing from then on but what `still` selects. */
  async function lost(server, still = () => false) {
    await until("everything has arrived", () => server.isQuiet());
    server.cut();
    server.loses = still;
  }

  /** Cuts the connection, and waits until the room is joined again. */
  async function reconnected(server, room) {
    await until("everything has arrived", () => server.isQuiet());
    server.cut();
    const joins = of(server, "phx_join").length;
    await until("it has rejoined", () => of(server, "phx_join").length > joins && room.state === "joined");
  }
}

const [newest] = await clients("phoenix-1.8");

test("pushes without a reply are asked for after a while, and then no longer", async (t) => {
  const server = await startScripted();
  t.after(server.stop);
  server.tracks = true;
  server.ignores = is("one");
  const unsent = [];
  const keep = (defaults) => keepSession({ ...defaults, onUnsent: (pushes) => unsent.push(...pushes) });
  const socket = newest.connect(t, { to: server, keep });
  const room = socket.channel(TOPIC);
  await ok(room.join());
  room.push("one", {});
  const asks = () => server.messages.filter(({ message }) => message[3] === "handled").length;
  await until("it has asked", () => asks() === 1);
  server.forget();
  server.cut();
  await until("it has rejoined", () => server.connects.length === 2 && room.state === "joined");
  assert.deepEqual([unsent, asks()], [[], 1]);
});

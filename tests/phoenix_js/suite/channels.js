// One client and its channels: joins, pushes, replies, and the ways a channel ends.
import assert from "node:assert/strict";
import { unique } from "../support/client.js";
import { called, collect, messages, next, ok, outcome } from "../support/promises.js";
import { test } from "../support/test.js";

export function channels(client) {
  const inOrder = {
    skip: !client.overWebSocket && !client.can.batchOverLongPoll && "this version sends one POST per push, in parallel",
  };

  test("a join is answered with the channel's response", async (t) => {
    const room = client.connect(t).channel(unique("room:"), { echo: [1, "two", null, { "€": "😀" }] });
    assert.deepEqual(await outcome(room.join()), ["ok", { echo: [1, "two", null, { "€": "😀" }] }]);
  });

  test("a join that the channel rejects is answered with its reason", async (t) => {
    const room = client.connect(t).channel(unique("room:closed"));
    assert.deepEqual(await outcome(room.join()), ["error", { reason: "unauthorized" }]);
  });

  test("a join that crashes is answered with an error", async (t) => {
    const room = client.connect(t).channel(unique("room:"), { crash: true });
    assert.deepEqual(await outcome(room.join()), ["error", { reason: "join crashed" }]);
  });

  test("a join of an unmatched topic is answered with an error", async (t) => {
    const nowhere = client.connect(t).channel(unique("nowhere:"));
    assert.deepEqual(await outcome(nowhere.join()), ["error", { reason: "unmatched topic" }]);
  });

  test("a channel can push right after its join", async (t) => {
    const room = client.connect(t, { params: { user_id: "ann" } }).channel(unique("room:"));
    const joined = next(room, "joined");
    await ok(room.join());
    assert.deepEqual(await joined, { user_id: "ann" });
  });

  test("the hundred-and-first channel of a socket is refused", async (t) => {
    const socket = client.connect(t);
    const rooms = Array.from({ length: 100 }, () => socket.channel(unique("room:")));
    await Promise.all(rooms.map((room) => ok(room.join())));
    const oneMore = socket.channel(unique("room:"));
    assert.deepEqual(await outcome(oneMore.join()), ["error", { reason: "too many channels joined" }]);
  });

  test("a reply echoes the payload", async (t) => {
    const room = await joined(t);
    const payload = { text: "žluťoučký 🐎 \u0000 \\ \"", list: [1.5, -7, 1e21, null, true], deep: { er: { est: {} } } };
    assert.deepEqual(await outcome(room.push("ping", payload)), ["ok", payload]);
  });

  test("half a megabyte makes the round trip", async (t) => {
    const room = await joined(t);
    const payload = { text: "x".repeat(512 * 1024) };
    assert.deepEqual(await outcome(room.push("ping", payload)), ["ok", payload]);
  });

  test("an error reply echoes the payload", async (t) => {
    const room = await joined(t);
    assert.deepEqual(await outcome(room.push("fail", { why: "because" })), ["error", { why: "because" }]);
  });

  test("a reply can be empty", async (t) => {
    const room = await joined(t);
    assert.deepEqual(await outcome(room.push("ack", { much: 1 })), ["ok", {}]);
  });

  test("a push without a reply times out", async (t) => {
    const room = await joined(t);
    assert.deepEqual(await outcome(room.push("silent", {}, 100)), ["timeout", {}]);
  });

  test("pushes made before the join are sent after it", async (t) => {
    const room = client.connect(t).channel(unique("room:"));
    room.join();
    assert.deepEqual(await outcome(room.push("ping", { early: true })), ["ok", { early: true }]);
  });

  test("five hundred pushes at once are all answered", async (t) => {
    const room = await joined(t);
    const numbers = Array.from({ length: 500 }, (_, n) => n);
    assert.deepEqual(await Promise.all(numbers.map(async (n) => (await ok(room.push("ping", { n }))).n)), numbers);
  });

  test("pushes are answered in order", inOrder, async (t) => {
    const room = await joined(t);
    const numbers = Array.from({ length: 250 }, (_, n) => n);
    const answered = [];
    await Promise.all(numbers.map(async (n) => answered.push((await ok(room.push("ping", { n }))).n)));
    assert.deepEqual(answered, numbers);
  });

  test("late replies arrive in order of completion", async (t) => {
    const room = await joined(t);
    const order = [];
    await Promise.all([
      ok(room.push("slow", { ms: 200 })).then((response) => order.push(response)),
      ok(room.push("slow", { ms: 50 })).then((response) => order.push(response)),
      ok(room.push("ping", { ms: "none" })).then((response) => order.push(response)),
    ]);
    assert.deepEqual(order, [{ ms: "none" }, { ms: 50 }, { ms: 200 }]);
  });

  test("a channel keeps its state", async (t) => {
    const room = await joined(t);
    await ok(room.push("assign", { k: "colour", v: ["blue"] }));
    assert.deepEqual(await ok(room.push("fetch", { k: "colour" })), { v: ["blue"] });
  });

  test("two channels of one socket do not share state", async (t) => {
    const socket = client.connect(t);
    const [one, other] = await Promise.all([joined(t, socket), joined(t, socket)]);
    await ok(one.push("assign", { k: "colour", v: "blue" }));
    assert.deepEqual(await ok(other.push("fetch", { k: "colour" })), { v: null });
  });

  test("a channel can push back", async (t) => {
    const room = await joined(t);
    const pushed = next(room, "pushed");
    room.push("push_me", { n: 1 });
    assert.deepEqual(await pushed, { n: 1 });
  });

  test("a channel that is left is closed and receives nothing more", async (t) => {
    const socket = client.connect(t);
    const room = await joined(t, socket);
    const arrived = messages(socket, room.topic);
    await ok(room.leave());
    await joined(t, socket);
    await client.server.post("/broadcast", { topic: room.topic, event: "new_msg", payload: {} });
    await joined(t, socket);
    assert.deepEqual(arrived, ["phx_reply", "phx_close"]);
  });

  test("a leave and a join in the same tick leave the topic joined", async (t) => {
    const socket = client.connect(t);
    const before = await joined(t, socket);
    before.leave();
    const room = socket.channel(before.topic);
    await ok(room.join());
    assert.deepEqual(await outcome(room.push("ping", { still: "here" })), ["ok", { still: "here" }]);
  });

  test("a second channel of a topic takes over from the first", async (t) => {
    const socket = client.connect(t);
    const first = await joined(t, socket);
    const closed = called((f) => first.onClose(f));
    const second = socket.channel(first.topic);
    await ok(second.join());
    await closed;

    const received = [collect(first, "new_msg"), collect(second, "new_msg")];
    const news = next(second, "new_msg");
    second.push("new_msg", { n: 1 });
    await news;
    await ok(second.push("ping"));
    assert.deepEqual(received, [[], [{ n: 1 }]]);
  });

  test("a join of an already joined topic replaces the channel on the server", async (t) => {
    const socket = client.connect(t);
    const first = await joined(t, socket);
    await ok(first.push("assign", { k: "colour", v: "blue" }));
    // a join without a leave, as phoenix.js sends after a reconnect that the server has not noticed
    socket.leaveOpenTopic = () => {};
    const second = socket.channel(first.topic);
    await ok(second.join());
    assert.deepEqual(await ok(second.push("fetch", { k: "colour" })), { v: null });
  });

  test("a channel that stops is closed and does not rejoin", async (t) => {
    const room = await joined(t);
    const closed = called((f) => room.onClose(f));
    room.push("stop");
    await closed;
    assert.equal(room.state, "closed");
  });

  test("a channel can reply and then stop", async (t) => {
    const room = await joined(t);
    const closed = called((f) => room.onClose(f));
    assert.deepEqual(await outcome(room.push("stop_reply", { last: "reply" })), ["ok", { last: "reply" }]);
    await closed;
  });

  test("a crashed channel is rejoined with fresh state", async (t) => {
    const room = await joined(t);
    await ok(room.push("assign", { k: "colour", v: "blue" }));
    const error = called((f) => room.onError(f));
    const again = next(room, "joined");
    room.push("boom");
    await error;
    await again;
    assert.deepEqual(await ok(room.push("fetch", { k: "colour" })), { v: null });
  });

  test("an unknown event crashes the channel", async (t) => {
    const room = await joined(t);
    const error = called((f) => room.onError(f));
    room.push("no_such_event");
    await error;
  });

  test("a crash does not affect other channels of the socket", async (t) => {
    const socket = client.connect(t);
    const [crashing, other] = await Promise.all([joined(t, socket), joined(t, socket)]);
    await ok(other.push("assign", { k: "colour", v: "blue" }));
    const error = called((f) => crashing.onError(f));
    crashing.push("boom");
    await error;
    assert.deepEqual(await ok(other.push("fetch", { k: "colour" })), { v: "blue" });
  });

  /** Joins a new room and waits for its `joined` push. */
  async function joined(t, socket = client.connect(t)) {
    const room = socket.channel(unique("room:"));
    const hello = next(room, "joined");
    await ok(room.join());
    await hello;
    return room;
  }
}

// Broadcasts to the members of a topic.
import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { unique } from "../support/client.js";
import { collect, messages, next, ok } from "../support/promises.js";
import { test } from "../support/test.js";

export function broadcasts(client) {
  test("a broadcast reaches every member, including the sender", async (t) => {
    const [ann, bob] = await members(t, 2);
    const received = [next(ann, "new_msg"), next(bob, "new_msg")];
    ann.push("new_msg", { text: "hello" });
    assert.deepEqual(await Promise.all(received), [{ text: "hello" }, { text: "hello" }]);
  });

  test("a broadcast reaches only clients that have joined its topic", async (t) => {
    const [[ann], [stranger]] = await Promise.all([members(t, 1), members(t, 1)]);
    const unexpected = messages(stranger.socket, ann.topic);
    const received = next(ann, "new_msg");
    ann.push("new_msg", { text: "hello" });
    await received;
    await ok(stranger.push("ping"));
    assert.deepEqual(unexpected, []);
  });

  test("broadcasts arrive in the order in which they were sent", async (t) => {
    const [bob] = await members(t, 1);
    const ann = client.connect(t, { transport: WebSocket }).channel(bob.topic);
    await ok(ann.join());
    const received = collect(bob, "new_msg");
    const last = next(bob, "typing");
    const numbers = Array.from({ length: 250 }, (_, n) => n);
    numbers.forEach((n) => ann.push("new_msg", { n }));
    ann.push("typing");
    await last;
    assert.deepEqual(received.map(({ n }) => n), numbers);
  });

  test("typing reaches everyone but the sender", async (t) => {
    const [ann, bob] = await members(t, 2);
    const own = collect(ann, "typing");
    const seen = next(bob, "typing");
    ann.push("typing", { who: "ann" });
    assert.deepEqual(await seen, { who: "ann" });
    await ok(ann.push("ping"));
    assert.deepEqual(own, []);
  });

  test("an intercepted broadcast is customized for each member", async (t) => {
    const users = [unique("ann"), unique("bob"), unique("cat")];
    const [ann, bob, cat] = await members(t, 3, users);
    const skipped = collect(bob, "shout");
    const received = [next(ann, "shout"), next(cat, "shout")];
    ann.push("shout", { text: "HO", skip: users[1] });
    const customized = (to) => ({ text: "HO", skip: users[1], to });
    assert.deepEqual(await Promise.all(received), [customized(users[0]), customized(users[2])]);
    await ok(bob.push("ping"));
    assert.deepEqual(skipped, []);
  });

  test("a broadcast from outside any channel reaches every member", async (t) => {
    const [ann, bob] = await members(t, 2);
    const received = [next(ann, "news"), next(bob, "news")];
    await client.server.post("/broadcast", { topic: ann.topic, event: "news", payload: { from: "outside" } });
    assert.deepEqual(await Promise.all(received), [{ from: "outside" }, { from: "outside" }]);
  });

  /** Joins `count` members to one topic, each with a socket of its own. */
  function members(t, count, users = []) {
    const topic = unique("room:");
    const member = async (_, n) => {
      const socket = client.connect(t, { params: users[n] ? { user_id: users[n] } : {} });
      const room = socket.channel(topic);
      await ok(room.join());
      return room;
    };
    return Promise.all(Array.from({ length: count }, member));
  }
}

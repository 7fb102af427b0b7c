// Presence: the package's `Presence` compared with the server's own list.
import assert from "node:assert/strict";
import { after, before } from "node:test";
import { unique } from "../support/client.js";
import { WALK_ENV, follow, walk } from "../support/lobby.js";
import { example, startServer } from "../support/server.js";
import { test } from "../support/test.js";
import { until } from "../support/until.js";

/** A walk waits for sessions to expire. */
const LONG = { timeout: 40_000 };

export function presence(client) {
  let server;
  before(async () => (server = await startServer(example("reference"), { env: WALK_ENV })));
  after(() => server.stop());

  test("every member sees joins, renames and leaves", async (t) => {
    const topic = unique("lobby:");
    const ann = await enter(t, server, { topic, user: "ann", name: "Ann" });
    const bob = await enter(t, server, { topic, user: "bob", name: "Bob" });
    const seen = (list) => list.map(([key, metas]) => [key, ...metas.map(({ name }) => name)]).sort();
    const see = (what) => {
      const sees = (one) => JSON.stringify(seen(one.list())) === JSON.stringify(what);
      return until(`both see ${JSON.stringify(what)}`, () => sees(ann) && sees(bob));
    };
    await see([["ann", "Ann"], ["bob", "Bob"]]);
    await bob.rename("Bobby");
    await see([["ann", "Ann"], ["bob", "Bobby"]]);
    const tab = await enter(t, server, { topic, user: "bob", name: "tab" });
    await see([["ann", "Ann"], ["bob", "Bobby", "tab"]]);
    assert.equal(await tab.leave(), "ok");
    await see([["ann", "Ann"], ["bob", "Bobby"]]);
  });

  for (const keep of [false, true]) {
    test(`lists agree after a random walk ${keep ? "with resumable sessions" : "without sessions"}`, LONG, (t) =>
      walk(t, { server, topic: unique("lobby:"), keep, enter: (proxy, who) => enter(t, proxy, who) }));
  }

  function enter(t, to, who) {
    const me = follow(client.phoenix, `ws://${to.host}/socket`, { ...who, options: client.options() });
    t.after(me.disconnect);
    return me;
  }
}

// The judges of the `moving` suites, behind nodes that know nothing of each other: they have to find that sessions do not move.
import assert from "node:assert/strict";
import { setTimeout as passing } from "node:timers/promises";
import { write } from "./continuity/writers.js";
import { HUNG_MS, tally, total, within } from "./moving/figures.js";
import { count } from "./moving/world.js";
import { enter } from "./moving/members.js";
import { watch } from "./moving/watchers.js";
import { startBalancer } from "./support/balancer.js";
import { clients, unique } from "./support/client.js";
import { example, startServer } from "./support/server.js";
import { test } from "./support/test.js";
import { until } from "./support/until.js";

test("sessions that begin anew, and what is missing, are noticed", { timeout: 60_000 }, async (t) => {
  const nodes = await Promise.all([0, 1, 2].map(() => startServer(example("reference"))));
  t.after(() => Promise.all(nodes.map((node) => node.kill())));
  const balancer = await startBalancer(nodes);
  t.after(balancer.stop);
  const [client] = await clients("phoenix-1.8", null);
  const [topic, lobbyTopic] = [unique("log:"), unique("lobby:")];
  const watchers = await Promise.all(nodes.map((node) => watch(t, client, node, { rooms: [topic], lobbies: [lobbyTopic] })));
  const members = await Promise.all(["session", "kept"].map((mode) => enter(t, { client, mode, to: balancer, topic, lobbyTopic })));
  const stops = members.map((member) => write(member));
  for (let n = 0; n < 2; n += 1) {
    await passing(300);
    balancer.cut();
    await until("both are back", () => members.every((member) => member.isBack() && member.away.every(([, to]) => to)));
  }
  await passing(500);
  stops.forEach((stop) => stop());
  await passing(300);
  await Promise.all(members.map((member) => member.leave()));
  const [{ lost, missed, anew, left, returns }] = count({ members, watchers, balancer, lag: { longest: () => 0 } });
  assert.ok(returns >= 4, `${returns} returns`);
  assert.ok(lost > 0, "between nodes that know nothing of each other something is lost");
  assert.ok(missed > 0, "and some of it was to be expected");
  assert.ok(anew > 0, "since sessions began anew");
  assert.equal(left, 0);
});

test("whoever waits is noticed, from the last cut on, by the lag of the machine", () => {
  const hung = (lag, member) => {
    const idle = { mode: "plain", isHeldToAll: false, arrivals: [], away: [], waits: [], told: [], unsent: [], cuts: [] };
    return total([tally({ ...idle, ...member }, [])], lag).hung;
  };
  for (const [what, seen] of [
    ["an answer", (from, ms) => ({ waits: [{ at: from, ms, status: "ok" }] })],
    ["an absence", (from, ms) => ({ away: [[from, from + ms]] })],
  ]) {
    const bound = within(HUNG_MS, 0);
    assert.equal(hung(0, seen(1000, bound)), 0, what);
    assert.equal(hung(0, seen(1000, bound + 1)), 1, what);
    assert.equal(hung(100, seen(1000, bound + 2000)), 0, what);
    assert.equal(hung(100, seen(1000, bound + 2001)), 1, what);
    assert.equal(hung(0, { ...seen(1000, bound + 1000), cuts: [500, 1800, 2000, bound + 2001] }), 0, what);
    assert.equal(hung(0, { ...seen(1000, bound + 1000), cuts: [1800, bound + 2001] }), 1, what);
  }
  assert.equal(hung(0, { away: [[Date.now() - 10_000]] }), 1, "who is not back at all");
});

test("what was answered has to be heard, and what was neither answered nor reported, unless the session has ended", () => {
  const idle = { isHeldToAll: true, arrivals: [], away: [], waits: [], told: [], older: [], cuts: [], unpacked: 0, wasToldAfter: () => true };
  const writer = { ...idle, user: "ann", written: 5, outcomes: new Map([[1, "ok"], [2, "ok"], [3, "error"]]), unsent: [{ payload: { n: 4 } }] };
  const unheard = (member) => tally({ ...writer, ...member }, [{ user: "ann", n: 1, at: 0 }]).unheard;
  assert.equal(unheard({ mode: "kept" }), 2, "2 was answered, and 5 is forgotten");
  for (const arrival of ["new", "gap", "recovered"]) assert.equal(unheard({ mode: "kept", told: [{ arrival, at: 0 }] }), 1, arrival);
  assert.equal(unheard({ mode: "kept", told: [{ arrival: "moved_gap", at: 0 }] }), 2, "a session that has moved goes on");
  assert.equal(unheard({ mode: "session" }), 1);
});

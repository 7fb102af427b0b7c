// Follows lobbies with `Presence`, and runs a random walk of many clients in one lobby.
import assert from "node:assert/strict";
import { setTimeout as passing } from "node:timers/promises";
import { startProxy } from "./proxy.js";
import { random } from "./random.js";
import { until } from "./until.js";

/**
 * Joins a lobby with a new socket and records what `Presence` reports. The function has no free variables, so it can
 * also run in a page; the functions that it returns yield JSON.
 */
export function follow({ Socket, Presence }, url, { topic, name, user, session, options }) {
  const params = { ...(user && { user_id: user }), ...(session && { session }) };
  let awayMs = 50;
  const timing = { timeout: 8000, rejoinAfterMs: () => 20, reconnectAfterMs: (tries) => tries * awayMs };
  const socket = new Socket(url, { params, ...timing, ...options });
  const room = socket.channel(topic, () => ({ name }));
  const presence = new Presence(room);

  const states = [];
  room.on("presence_state", (state) => states.push(JSON.parse(JSON.stringify(state))));
  const changes = [];
  const record = (what) => (key, _, { metas }) => changes.push(...metas.map((meta) => ({ ...meta, what, key })));
  presence.onJoin(record("join"));
  presence.onLeave(record("leave"));

  const ended = (push) =>
    new Promise((done) => {
      for (const status of ["ok", "error", "timeout"]) push.receive(status, () => done(status));
    });
  const joined = ended(room.join());
  socket.connect();
  return {
    joined: () => joined,
    isThere: () => socket.isConnected() && room.state === "joined",
    rename: (other) => ended(room.push("rename", { name: (name = other) })),
    leave: () => ended(room.leave()),
    /** Sets how long it stays away after losing its connection. */
    stayAway: (ms) => void (awayMs = ms),
    /** Disconnects without leaving the lobby. */
    disconnect() {
      socket.connect = () => {}; // before 1.8 a pending reconnect survives a disconnect
      socket.disconnect();
    },
    list: () => presence.list((key, { metas }) => [key, metas]),
    changes: () => changes,
    states: () => states,
  };
}

const PEOPLE = 8;
const STEPS = 7;
const MAX_KILLS = 2; // per session: after five, the server would conclude that WebSocket does not work here

/** Environment of a server for walks: clients that vanish are removed soon. */
export const WALK_ENV = { WINDOW_MS: 600, SESSION_TTL_MS: 3000 };

/**
 * Clients join, leave, rename themselves, lose their connections and return, all at once, several of them as one
 * user. In the end every client must see the server's list, and that must be the expected one. `enter(proxy, who)`
 * follows a lobby through a proxy; the functions that it returns may be asynchronous. `keep` makes sessions resumable.
 */
export async function walk(t, { server, enter, topic, keep, seed = chosenSeed() }) {
  t.diagnostic(`WALK_SEED=${seed}`);
  let arrivals = 0;
  const watcher = await arrive("watcher", "watching");
  const people = await Promise.all(Array.from({ length: PEOPLE }, (_, n) => live(n, random(seed + n))));
  const present = [watcher, ...people.filter(Boolean)];

  const expected = present.map(({ user, name }) => `${user}: ${name}`).sort();
  let seen;
  await until(
    () => `the watcher sees ${seen} and not ${expected}`,
    async () => same((seen = named(await watcher.list())), expected),
  );
  const witness = await arrive("witness", "fresh");
  const [state] = await witness.states();
  const truth = Object.entries(state).map(([key, { metas }]) => [key, metas]);
  assert.deepEqual(named(truth), [...expected, "witness: fresh"].sort());
  for (const one of [...present, witness]) {
    const who = `${one.user} (${one.name})`;
    await until(`${who} sees what the server sees`, async () => same(refs(await one.list()), refs(truth)));
    assert.deepEqual(remaining(await one.changes()), refs(truth), `the changes that ${who} received`);
  }
  assertEachOnce(await watcher.changes());

  async function arrive(user, name) {
    arrivals += 1;
    const proxy = await startProxy(server);
    t.after(() => proxy.stop());
    const session = keep ? crypto.randomUUID() : undefined;
    const me = { user, name, proxy, kills: 0, ...(await enter(proxy, { topic, user, name, session })) };
    assert.equal(await me.joined(), "ok");
    await until(`${user} (${name}) has the state`, async () => (await me.states()).length > 0);
    return me;
  }

  /** Walks, and returns the client that is present in the end, or `null`. */
  async function live(n, dice) {
    const user = `user-${n % 3}`;
    let me = null;
    for (let step = 0; step < STEPS; step += 1) {
      await passing(dice(60));
      const name = `${n}.${step}`;
      const what = dice(10);
      if (!me) {
        me = await arrive(user, name);
      } else if (what < 5 && me.kills < MAX_KILLS) {
        await kill(me, 50 + dice(200));
      } else {
        await until(`${user} (${me.name}) is there`, () => me.isThere());
        // Also proves that the join was answered: a leave before that would only withdraw the join.
        assert.equal(await me.rename((me.name = name)), "ok");
        if (what < 8) continue;
        if (what === 8) assert.equal(await me.leave(), "ok");
        await me.disconnect();
        me.proxy.stop();
        me = null;
      }
    }
    if (n < 2) me ??= await arrive(user, `${n}.last`);
    if (me) await until(`${user} (${me.name}) is there`, () => me.isThere());
    return me;
  }

  /** Cuts the connection, repeatedly, since between two polls there is none. */
  async function kill(me, awayMs) {
    me.kills += 1;
    await me.stayAway(awayMs);
    await until(`${me.user} (${me.name}) notices`, async () => {
      me.proxy.cut();
      return !(await me.isThere());
    });
  }

  /**
   * A client that is present throughout receives each join and each leave once; its own join twice, in the state and in
   * a diff. A client that resumes a session does not join anew.
   */
  function assertEachOnce(changes) {
    const others = changes.filter(({ key }) => key !== watcher.user);
    const joins = others.filter(({ what }) => what === "join");
    const once = (metas) => assert.equal(new Set(metas.map(({ phx_ref }) => phx_ref)).size, metas.length);
    once(joins);
    once(others.filter(({ what }) => what === "leave"));
    if (keep) assert.equal(joins.filter(({ phx_ref_prev }) => !phx_ref_prev).length, arrivals - 1);
  }
}

/** Determines what the clients attempt, not when they get to it. */
const chosenSeed = () => Number(process.env.WALK_SEED ?? Date.now() % 1e6);

/** Keys and names present in a list. */
const named = (list) => list.flatMap(([key, metas]) => metas.map(({ name }) => `${key}: ${name}`)).sort();

/** Keys and refs present in a list. */
const refs = (list) => list.flatMap(([key, metas]) => metas.map(({ phx_ref }) => `${key}: ${phx_ref}`)).sort();

/** Refs that remain after all joins and leaves. */
function remaining(changes) {
  const there = new Set();
  for (const { what, key, phx_ref } of changes) {
    if (what === "join") there.add(`${key}: ${phx_ref}`);
    else there.delete(`${key}: ${phx_ref}`);
  }
  return [...there].sort();
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

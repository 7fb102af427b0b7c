// Lobbies as a client follows them, and a random walk of many in one lobby.
import assert from "node:assert/strict";
import { setTimeout as passing } from "node:timers/promises";
import { startProxy } from "./proxy.js";
import { until } from "./until.js";

/**
 * Joins a lobby with a new socket, and remembers what `Presence` tells. It needs nothing from around it, so it runs in
 * a page as well; what its functions return is JSON.
 */
export function follow({ Socket, Presence }, url, { topic, name, user, session, options }) {
  const params = { ...(user && { user_id: user }), ...(session && { session }) };
  let awayMs = 50;
  const patience = { timeout: 8000, rejoinAfterMs: () => 20, reconnectAfterMs: (tries) => tries * awayMs };
  const socket = new Socket(url, { params, ...patience, ...options });
  const room = socket.channel(topic, () => ({ name }));
  const presence = new Presence(room);

  const states = [];
  room.on("presence_state", (state) => states.push(JSON.parse(JSON.stringify(state))));
  const told = [];
  const tell = (what) => (key, _, { metas }) => told.push(...metas.map((meta) => ({ ...meta, what, key })));
  presence.onJoin(tell("join"));
  presence.onLeave(tell("leave"));

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
    /** For how long it will stay away when its connection is lost. */
    stayAway: (ms) => void (awayMs = ms),
    /** Goes without a word to the lobby. */
    disconnect() {
      socket.connect = () => {}; // before 1.8 a reconnect that is under way survives a disconnect
      socket.disconnect();
    },
    list: () => presence.list((key, { metas }) => [key, metas]),
    told: () => told,
    states: () => states,
  };
}

const PEOPLE = 8;
const STEPS = 7;
const MOST_KILLS = 2; // of one session: after five it would look as though WebSockets did not work here

/** Servers for a walk: on them, those who are gone without a word are gone soon. */
export const WALK_ENV = { WINDOW_MS: 600, SESSION_TTL_MS: 3000 };

/**
 * People join, leave, take other names, lose their connections and come back, all at once, several of them as one
 * user. In the end everyone sees what the server sees, and that is what there should be. `enter(proxy, who)` follows
 * a lobby through a proxy; its functions may answer later. With `keep`, sessions are kept.
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
    assert.deepEqual(remaining(await one.told()), refs(truth), `what ${who} was told of`);
  }
  hearsAllOnce(await watcher.told());

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

  /** Who somebody is in the end: `null` for nobody. */
  async function live(n, dice) {
    const user = `user-${n % 3}`;
    let me = null;
    for (let step = 0; step < STEPS; step += 1) {
      await passing(dice(60));
      const name = `${n}.${step}`;
      const what = dice(10);
      if (!me) {
        me = await arrive(user, name);
      } else if (what < 5 && me.kills < MOST_KILLS) {
        await kill(me, 50 + dice(200));
      } else {
        await until(`${user} (${me.name}) is there`, () => me.isThere());
        // It says as well that the join was answered: who leaves before that only takes back a join.
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

  /** Ends a connection without a word: again and again, since between two polls there is none. */
  async function kill(me, awayMs) {
    me.kills += 1;
    await me.stayAway(awayMs);
    await until(`${me.user} (${me.name}) notices`, async () => {
      me.proxy.cut();
      return !(await me.isThere());
    });
  }

  /**
   * Who is there all the time is told of each join and each leave once; of its own join twice, since that is in the
   * state and in a diff. Those who come back to a session do not come anew.
   */
  function hearsAllOnce(told) {
    const heard = told.filter(({ key }) => key !== watcher.user);
    const joins = heard.filter(({ what }) => what === "join");
    const once = (metas) => assert.equal(new Set(metas.map(({ phx_ref }) => phx_ref)).size, metas.length);
    once(joins);
    once(heard.filter(({ what }) => what === "leave"));
    if (keep) assert.equal(joins.filter(({ phx_ref_prev }) => !phx_ref_prev).length, arrivals - 1);
  }
}

/** Only what people want to do depends on it: when they get to it does not. */
const chosenSeed = () => Number(process.env.WALK_SEED ?? Date.now() % 1e6);

/** Numbers below a limit that depend on the seed alone. */
function random(seed) {
  let state = Math.imul(seed, 2654435761) >>> 0;
  return (limit) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** Who is there under what name. */
const named = (list) => list.flatMap(([key, metas]) => metas.map(({ name }) => `${key}: ${name}`)).sort();

/** Who is there by what ref. */
const refs = (list) => list.flatMap(([key, metas]) => metas.map(({ phx_ref }) => `${key}: ${phx_ref}`)).sort();

/** What is left of all joins after all leaves. */
function remaining(told) {
  const there = new Set();
  for (const { what, key, phx_ref } of told) {
    if (what === "join") there.add(`${key}: ${phx_ref}`);
    else there.delete(`${key}: ${phx_ref}`);
  }
  return [...there].sort();
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

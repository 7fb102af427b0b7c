// Clients that reach any node: each writes in a room, is asked for nothing but questions of its own, and is in a lobby.
import { ask, follow } from "../cluster/members.js";
import { members } from "../continuity/members.js";
import { ok, outcome } from "../support/promises.js";
import { isAnew } from "./figures.js";

/**
 * - `plain`: the client without a session id, which may lose what is sent while it is away.
 * - `session`: the unmodified client with `session`, which loses nothing, and may receive something twice.
 * - `kept`: with `keepSession`, which neither loses nor repeats anything, in either direction.
 */
export const MODES = ["plain", "session", "kept"];

/** Before 1.8, a client gives up an attempt that is not answered when the next one is due: it must be able to wait. */
const reconnectAfterMs = (tries) => [20, 100, 250, 500][tries - 1] ?? 1000;

/** More often than the nodes allow a WebSocket to be silent. */
export const HEARTBEAT_MS = 5000;

/** The return to WebSocket, which a busy machine may take this long to open and to answer on. */
const RETURN = { returnAfterMs: () => 200, steadyAfterMs: 1000 };

/** How long an answer may take that is not measured. */
const ANSWERED_MS = 60_000;

/**
 * Connects a client through the balancer, and joins. With `fallsBack` it goes to long poll where WebSockets do not work. One
 * that does not `look` keeps no list of who is there.
 */
export async function enter(t, { client, mode, to, topic, lobbyTopic, fallsBack = false, looks = true, askEveryMs, ...more }) {
  const session = mode === "plain" ? null : undefined;
  const longPollFallbackMs = fallsBack ? 2500 : undefined; // the default of phoenix.js
  let joins = 0;
  const payload = () => ({ echo: (joins += 1) });
  const options = { to, topic, payload, session, longPollFallbackMs, reconnectAfterMs, heartbeatIntervalMs: HEARTBEAT_MS, ...RETURN, ...more };
  const me = await members(client, mode === "kept")(t, options);
  const { socket, room } = me;
  Object.assign(me, { client, mode, topic, cuts: to.cuts ?? [], connection: 0, arrivals: [], away: [], waits: [], told: [], older: [], unpacked: 0, isHere: true });
  socket.onOpen(() => (me.connection += 1));
  room.on("new_msg", ({ user, n, at }) => me.arrivals.push({ user, n, at, now: Date.now(), connection: me.connection }));
  follow(me, room);
  // With `keepSession` a push is answered over the next connection.
  if (mode !== "kept") room.onError(() => me.interrupt?.());

  const lobby = socket.channel(lobbyTopic, { name: me.user });
  const presence = looks && new client.phoenix.Presence(lobby);
  await ok(lobby.join());
  await mark(me);
  const heard = new Set(); // an answer that is repeated may be the first to arrive
  room.joinPush.receive("ok", ({ echo, arrival }) => {
    arrive(me, heard.has(echo) ? "back" : arrival);
    if (echo < Math.max(...heard)) me.older.push(Date.now());
    heard.add(echo);
  });
  const asking = ask(me, room, askEveryMs);
  t.after(() => (me.isHere = false));

  return Object.assign(me, {
    isHeldToAll: mode !== "plain",
    list: () => Object.fromEntries(presence.list((key, { metas }) => [key, metas.length])),
    /** Who it is, and where it stands. */
    toString: () => `${client.name} (${mode}): ${socket.connectionState()}, ${room.state}, ${lobby.state}, attempt ${socket.reconnectTimer.tries}`,
    isBack: () => me.isThere() && lobby.state === "joined",
    /** Whether it was told since then that something may be missing. */
    wasToldAfter: (at) => me.told.some(({ arrival, at: moment }) => arrival !== "recovered" && moment > at - 200),
    async leave() {
      me.isHere = false;
      me.interrupt?.();
      await asking;
    },
  });
}

/**
 * Learns from the answer to a join whether the session goes on: on the same node, which repeats an earlier answer (`back`),
 * or `moved` from another; or something may be missing, since it was begun anew (`new`, or `gap` if it named a position), or has moved
 * with a gap (`moved_gap`); or it was begun anew, and nothing is missing (`recovered`). What this member has stored in its channel must have travelled along
 * with a session that goes on.
 */
async function arrive(me, arrival) {
  if (!me.hasArrived) return void (me.hasArrived = true);
  if (arrival === "moved_gap" || isAnew({ arrival })) me.told.push({ arrival, at: Date.now() });
  if (isAnew({ arrival })) {
    me.interrupt?.();
    return mark(me);
  }
  if (!me.isMarked) return;
  const [status, response] = await outcome(me.room.push("fetch", { k: "mark" }, ANSWERED_MS));
  if (status === "ok" && response.v !== me.user) me.unpacked += 1;
}

/** Stores something in the channel. */
async function mark(me) {
  me.isMarked = false;
  const [status] = await outcome(me.room.push("assign", { k: "mark", v: me.user }, ANSWERED_MS));
  me.isMarked = status === "ok";
}

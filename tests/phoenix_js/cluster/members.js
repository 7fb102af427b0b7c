// The clients of a cluster: each is in a room in which everything is counted, and in a lobby with presence.
import { setTimeout as passing } from "node:timers/promises";
import { unique } from "../support/client.js";
import { outcome } from "../support/promises.js";
import { startLink } from "./link.js";

const ASK_EVERY_MS = 100;
const GIVEN_UP_MS = 20_000;

/** How long a message may be on its way, at most: what an engine was away for, and what waits for it. */
const ON_THE_WAY_MS = 6000;

/** Connects a client to a node, and joins. `isKept`: with a resumable session. */
export async function enter(t, client, node, { isKept = false } = {}) {
  const front = await startLink(node.port);
  t.after(front.stop);
  const user = unique("user");
  const session = isKept && { session: unique("session-").padEnd(24, "x") };
  const socket = client.connect(t, { to: front, params: { user_id: user, ...session } });
  const room = socket.channel("room:load");
  const lobby = socket.channel("lobby:all", { name: user });
  const presence = new client.phoenix.Presence(lobby);

  const me = { user, isKept, node, received: [], left: [], away: [], waits: [], rejoins: 0, isHere: true };
  room.on("load", ({ from, n, at }) => me.received.push({ from, n, at, now: Date.now() }));
  presence.onLeave((key, { metas }) => metas.length === 0 && me.left.push(key));
  follow(me, room);
  room.onError(() => me.interrupt?.());
  room.onError(() => (me.rejoins += Number(socket.isConnected())));

  const joins = [room, lobby].map((channel) => timed(outcome(channel.join())));
  me.joins = await Promise.all(joins);
  me.since = Date.now();
  const asking = ask(me, room);
  t.after(() => (me.isHere = false));

  return Object.assign(me, {
    /** Moves to another node, as a balancer does when the connection to this one is lost. */
    moveTo(other) {
      [front.to, me.node] = [other.port, other];
    },
    /** Users with the number of their entries. */
    list: () => Object.fromEntries(presence.list((key, { metas }) => [key, metas.length])),
    isThere: () => socket.isConnected() && room.state === "joined" && lobby.state === "joined",
    /** Whether a message that was sent then was to be received. */
    wasThere: (at) => !me.away.some(([from, to]) => from < at + ON_THE_WAY_MS && (to ?? Infinity) > at - 200),
    /** Whether it has joined again since then, or joins again. */
    wasToldAfter: (at) => me.away.some(([, to]) => (to ?? Infinity) > at - 200),
    async leave() {
      me.isHere = false;
      await asking;
    },
  });
}

/** Records when a member was not in the room. */
export function follow(me, room) {
  room.onError(() => {
    if (me.away.at(-1)?.length !== 1) me.away.push([Date.now()]);
  });
  room.joinPush.receive("ok", () => {
    if (me.away.at(-1)?.length === 1) me.away.at(-1).push(Date.now());
  });
}

/** Asks for answers all the time, and records how long they took. What calls `me.interrupt` ends a wait for an answer that is lost. */
export async function ask(me, room, everyMs = ASK_EVERY_MS) {
  while (me.isHere) {
    if (room.state === "joined") {
      const interrupted = new Promise((resolve) => (me.interrupt = () => resolve(["interrupted"])));
      const at = Date.now();
      const [status, ms] = await timed(Promise.race([outcome(room.push("ping", {}, GIVEN_UP_MS)), interrupted]));
      me.waits.push({ at, ms, status, node: me.node });
    }
    await passing(everyMs);
  }
}

/** Resolves to the status of an outcome, and to how long it took. */
async function timed(outcome) {
  const start = Date.now();
  const [status] = await outcome;
  return [status, Date.now() - start];
}

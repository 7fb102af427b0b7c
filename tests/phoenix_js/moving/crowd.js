// A rolling restart under a crowd: thousands of clients in processes of their own, in rooms of hundreds and lobbies of
// tens, with broadcasts from outside.
import { fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as passing } from "node:timers/promises";
import { clients, unique } from "../support/client.js";
import { oddities, total } from "./figures.js";
import { start } from "./world.js";
import { heardOn, left, watch } from "./watchers.js";

const CLIENTS = Number(process.env.CROWD ?? 3000);
const PROCESSES = 3;
const [ROOM, LOBBY] = [300, 50];
const MESSAGES_PER_SECOND = 20;
/** As long as is recommended: a node gives some sixty sessions away in a second. */
const ENV = { SHUTDOWN_MS: 30_000 };

/** Lets the crowd in, and calls `run`, whose trouble it lives through. Resolves to a row of the table, and what is odd. */
export async function crowd(t, name, run) {
  const { nodes, lag } = await start(t, name, ENV, { direct: true });
  const topics = (size) => Array.from({ length: Math.ceil(CLIENTS / size) }, () => unique("crowd-"));
  const rooms = topics(ROOM).map((topic) => `log:${topic}`);
  const lobbies = topics(LOBBY).map((topic) => `lobby:${topic}`);
  const [newest] = await clients("phoenix-1.8", null);
  const watchers = await Promise.all(nodes.map((node) => watch(t, newest, node, { rooms, lobbies })));

  const processes = await Promise.all(
    Array.from({ length: PROCESSES }, async (_, index) => {
      const child = fork(new URL("crowd_members.js", import.meta.url), { execArgv: [] });
      t.after(() => child.kill("SIGKILL"));
      const places = Array.from({ length: CLIENTS }, (_, n) => ({ room: rooms[n % rooms.length], lobby: lobbies[n % lobbies.length] }));
      child.send({ enter: { hosts: nodes.map(({ host }) => host), places: places.filter((_, n) => n % PROCESSES === index) } });
      return { child, users: await answer(child) };
    }),
  );
  const load = send(nodes, rooms);
  t.after(() => load.stop());
  await passing(2000);
  const tell = (message) => processes.forEach(({ child }) => child.send(message));
  await run(nodes, { takeOut: (index) => tell({ takeOut: index }), putIn: (index) => tell({ putIn: index }) });
  await passing(2000);
  await load.stop();
  await passing(500);

  const heard = Object.fromEntries(rooms.map((room) => [room, heardOn(room, watchers)]));
  const seen = await Promise.all(
    processes.map(async ({ child }) => {
      child.send({ end: { heard } });
      return answer(child);
    }),
  );
  const tallies = seen.flatMap(({ tallies }) => tallies);
  const row = {
    ...total(tallies, Math.max(lag.longest(), ...seen.map(({ lag }) => lag))),
    sent: Object.values(heard).reduce((sum, { length }) => sum + length, 0),
    left: left(processes.flatMap(({ users }) => users), watchers),
  };
  return [row, oddities(tallies)];
}

/** Resolves to what a process sends next, and throws if it ends instead. */
async function answer(child) {
  const ended = once(child, "exit").then(() => {
    throw new Error("a process of the crowd has ended");
  });
  ended.catch(() => {});
  const [message] = await Promise.race([once(child, "message"), ended]);
  return message;
}

/** Broadcasts from outside: each node sends in all rooms in turn, one message after the other. */
function send(nodes, rooms) {
  let isOver = false;
  const senders = nodes.map(async (node) => {
    for (let n = 1; !isOver; n += 1) {
      const payload = { user: `node ${node.index}`, n, at: Date.now() };
      await node.post("/broadcast", { topic: rooms[n % rooms.length], event: "new_msg", payload }).catch(() => {});
      await passing((1000 * nodes.length) / MESSAGES_PER_SECOND);
    }
  });
  return {
    stop() {
      isOver = true;
      return Promise.all(senders);
    },
  };
}

// Three nodes over an engine, behind a balancer, with all kinds of clients that write.
import { startEngine } from "../cluster/engines.js";
import { startNodes } from "../cluster/nodes.js";
import { write } from "../continuity/writers.js";
import { startBalancer } from "../support/balancer.js";
import { clients, unique } from "../support/client.js";
import { measureLag } from "../support/lag.js";
import { until } from "../support/until.js";
import { agent } from "../support/xhr.js";
import { isAnew, lacks, oddities, tally, total } from "./figures.js";
import { MODES, enter } from "./members.js";
import { handledTwice, heardOn, left, watch } from "./watchers.js";

export const FULL = process.env.MOVING === "full";
const SHUTDOWN_MS = FULL ? 8000 : 3000;

const VERSIONS = ["phoenix-1.8", "phoenix-1.8.0", "phoenix-1.7", "phoenix-1.6"];
/** Members of each kind, and the time between their messages, and between their questions. */
const [EACH, EVERY_MS] = FULL ? [2, 200] : [1, 400];
/** Part of the names of the only clients to run, such as `1.7` or `longpoll`. */
export const ONLY = process.env.MOVING_ONLY ?? "";
/** Settings of the nodes. A WebSocket that a client has forgotten to close ends soon. */
const ENV = { SHUTDOWN_MS, WINDOW_MS: 2000, IDLE_MS: 12_000 };

/** After which everybody has everything, or was told, also on a busy machine. */
export const SETTLED_MS = 60_000;

agent.maxSockets = Infinity;

/** Starts an engine, and the nodes. */
export async function start(t, name, env = {}, options = {}) {
  const engine = await startEngine(name, options);
  t.after(engine.stop);
  const nodes = await startNodes(t, engine, { ...ENV, ...env }, options);
  const lag = measureLag(nodes);
  t.after(lag.stop);
  return { engine, nodes, lag };
}

/** Starts an engine, and the nodes behind the balancer. */
export async function startBalanced(t, name, options) {
  const world = await start(t, name, {}, options);
  const balancer = await startBalancer(world.nodes);
  t.after(balancer.stop);
  return { ...world, balancer };
}

/**
 * Lets one client of each kind in, and more in the full form. Each version over each transport has a room. They write with
 * this `event`.
 */
export async function populate(t, world, { fallsBack, event }) {
  const { nodes, balancer } = world;
  const all = (await Promise.all(VERSIONS.map((version) => clients(version, null)))).flat();
  const rooms = all
    .filter(({ name }) => name.includes(ONLY))
    .map((client) => ({ client, to: balancer, topic: unique("log:"), lobbyTopic: unique("lobby:"), fallsBack: fallsBack && client.overWebSocket }));
  const topics = { rooms: rooms.map(({ topic }) => topic), lobbies: rooms.map(({ lobbyTopic }) => lobbyTopic) };
  world.watchers = await Promise.all(nodes.map((node) => watch(t, all[0], node, topics)));
  const kinds = rooms.flatMap((room) => MODES.map((mode) => ({ ...room, mode })));
  world.members = await Promise.all(kinds.flatMap((kind) => Array.from({ length: EACH }, () => enter(t, { ...kind, askEveryMs: EVERY_MS }))));
  const stops = world.members.map((member) => write(member, EVERY_MS, event));
  world.stopWriting = () => stops.forEach((stop) => stop());
  t.after(world.stopWriting);
  await everyone(world.members, "receives", ({ arrivals }) => arrivals.length > 0);
}

/** Ends the load, and waits until everybody has what was sent, and is at one node. */
export async function settle({ nodes, members, watchers, stopWriting }) {
  const up = nodes.filter(({ isUp }) => isUp);
  const there = watchers.filter(({ node }) => node.isUp);
  stopWriting();
  await everyone(members, "is back", (member) => member.isBack());
  await everyone(members, "is answered", (member) => member.isAnswered());
  const heard = ({ topic }) => heardOn(topic, watchers);
  const hasAll = (member) => !member.isHeldToAll || lacks(member, heard(member)).length === 0;
  await everyone(members, "has everything", hasAll).catch(() => {}); // that is counted
  await Promise.all(members.map((member) => member.leave()));
  await haveSessions(up, members.length + there.length);
  await everyone(members, "sees the others", ({ topic, list }) => {
    const seen = list();
    const due = [...members.filter((member) => member.topic === topic), ...there].map(({ user }) => user);
    return due.length === Object.keys(seen).length && due.every((user) => seen[user] === 1);
  });
}

/** Waits until these nodes have as many sessions as there are clients, none of them without a connection. */
export function haveSessions(nodes, number) {
  let sessions;
  const sum = (what) => sessions.reduce((total, node) => total + node[what], 0);
  return until(
    () => `${number} clients have one session each: ${JSON.stringify(sessions)}`,
    async () => {
      sessions = await Promise.all(nodes.map((node) => node.get("/sessions")));
      return sum("connected") === number && sum("detached") === 0;
    },
    SETTLED_MS,
  );
}

/** What all have seen: a row of the table, and a line for each that has seen something odd. */
export function count({ members, watchers, balancer, lag, apartMs = 0 }) {
  const heard = new Map(members.map(({ topic }) => [topic, heardOn(topic, watchers)]));
  // Before 1.7 the POSTs of a long poll overtake each other. And a node that was out of reach may still handle what a
  // client sent before it began another session.
  const unordered = members.filter(({ client, told }) => !client.can.batchOverLongPoll || told.length > 0).map(({ user }) => user);
  const tallies = members.map((member) => tally(member, heard.get(member.topic), unordered, apartMs > 0));
  const row = total(tallies, lag.longest(), apartMs);
  const users = (which) => members.filter(which).map(({ user }) => user);
  const sent = [...heard.values()].reduce((sum, { length }) => sum + length, 0);
  const pushedTwice = handledTwice(users(({ mode, told }) => mode === "kept" && !told.some(isAnew)), watchers);
  const hasLeft = left(users(({ isHeldToAll }) => isHeldToAll), watchers);
  const refused = balancer.mostTurnedAway();
  return [{ ...row, sent, twice: row.twice + pushedTwice, left: hasLeft, refused }, oddities(tallies)];
}

/** Waits until each of these is or does something. */
export function everyone(members, what, condition) {
  let others = [];
  return until(
    () => `everyone ${what}, but ${others.join("; ")}`,
    async () => {
      const answers = await Promise.all(members.map(condition));
      others = members.filter((_, index) => !answers[index]);
      return others.length === 0;
    },
    SETTLED_MS,
  );
}

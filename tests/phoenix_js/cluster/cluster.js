// Three processes of the reference application over one engine, each through a proxy of its own, with clients and load.
import { setTimeout as passing } from "node:timers/promises";
import { clients } from "../support/client.js";
import { until } from "../support/until.js";
import { enter } from "./members.js";
import { startNodes } from "./nodes.js";

/** `CLUSTER=full`: more clients, more messages. */
const [GROUPS, SEND_EVERY_MS] = process.env.CLUSTER === "full" ? [3, 20] : [1, 40];

/** Starts the nodes, the clients and the load, and returns when all is well. */
export async function startCluster(t, engine) {
  const [websocket, longpoll] = await clients("phoenix-1.8", null);
  const cluster = { nodes: [], members: [], sent: [] };

  cluster.nodes = await startNodes(t, engine);

  /** Adds one client of each kind to a node. */
  const join = async (node) => {
    const kinds = [[websocket], [longpoll], [websocket, { isKept: true }]];
    const members = await Promise.all(kinds.map(([client, options]) => enter(t, client, node, options)));
    cluster.members.push(...members);
    return members;
  };
  await Promise.all(cluster.nodes.flatMap((node) => Array.from({ length: GROUPS }, () => join(node))));

  const sending = cluster.nodes.map((node) => send(cluster, node));
  t.after(() => (cluster.isOver = true));
  Object.assign(cluster, {
    join,
    on: (node) => cluster.members.filter((member) => member.node === node),
    notOn: (node) => cluster.members.filter((member) => member.node !== node),
    isRight: (watchers, members) => watchers.every((watcher) => seesEachOnce(watcher, members)),
    async end() {
      cluster.isOver = true;
      await Promise.all(sending);
      await quiet(cluster);
      // Those who have missed something are told when it is certain, after a few heartbeats of the nodes.
      for (const end = Date.now() + TOLD_MS; count(cluster).silent > 0 && Date.now() < end; ) await passing(100);
      await Promise.all(cluster.members.map((member) => member.leave()));
    },
  });
  await until("all see each other", () => cluster.isRight(cluster.members, cluster.members));
  await until("messages flow", () => flowsSince(cluster, 0, cluster.members) !== undefined);
  return cluster;
}

/** Waits until nobody has received anything for a while. */
async function quiet({ members }) {
  const received = () => members.reduce((sum, { received }) => sum + received.length, 0);
  for (let before = -1; before !== received(); ) {
    before = received();
    await passing(QUIET_MS);
  }
}

/** Broadcasts from outside of any channel. What the node has taken counts as sent. */
async function send(cluster, node) {
  const path = "/broadcast";
  const pending = new Set();
  for (let n = 1; !cluster.isOver && node.isUp; n += 1) {
    if (!node.isStopped) {
      const message = { from: node.index, n, at: Date.now() };
      const posted = node.post(path, { topic: "room:load", event: "load", payload: message }).then(
        ({ status }) => status === 204 && cluster.sent.push(message),
        () => {},
      );
      pending.add(posted);
      posted.then(() => pending.delete(posted));
    }
    await passing(SEND_EVERY_MS);
  }
  await Promise.all(pending);
}

/** Whether the list of a member has each of these users, once, and nobody else. */
function seesEachOnce(watcher, members) {
  const list = watcher.list();
  return Object.keys(list).length === members.length && members.every(({ user }) => list[user] === 1);
}

/**
 * Returns how long after a moment each of these members had received something that was sent on each other node since
 * then, or `undefined` if one has not yet.
 */
export function flowsSince(cluster, moment, members) {
  const nodes = cluster.nodes.filter(({ isUp }) => isUp);
  const firsts = members.flatMap(({ node, received }) =>
    nodes.filter((other) => other !== node).map(({ index }) => received.find(({ from, at }) => from === index && at >= moment)),
  );
  return firsts.every(Boolean) ? Math.max(...firsts.map(({ now }) => now - moment)) : undefined;
}

/** After which nothing is on its way any more. */
const QUIET_MS = 500;

/** After which a member with a resumable session has been told of a loss. */
const TOLD_MS = 10_000;

/** What a node has taken just before its death may have died with it. */
const DIED_WITH_MS = 1500;

/**
 * Counts what was sent, and what became of it at those who were there. A loss is silent if the member has a resumable
 * session, and did not have to join again.
 */
export function count(cluster) {
  const outlived = ({ from, at }) => at < (cluster.nodes[from].diedAt ?? Infinity) - DIED_WITH_MS;
  const sent = cluster.sent.filter(outlived);
  const counts = { sent: sent.length, due: 0, received: 0, lost: 0, lostAtHome: 0, silent: 0, twice: 0 };
  for (const { node, received, isKept, wasThere, wasToldAfter, since } of cluster.members) {
    const times = new Map();
    for (const { from, n } of received) times.set(`${from} ${n}`, (times.get(`${from} ${n}`) ?? 0) + 1);
    for (const { from, n, at } of sent) {
      const copies = times.get(`${from} ${n}`) ?? 0;
      counts.twice += Math.max(0, copies - 1);
      if (at < since) continue;
      counts.silent += Number(isKept && copies === 0 && !wasToldAfter(at));
      if (!wasThere(at)) continue;
      counts.due += 1;
      counts.received += Number(copies > 0);
      counts.lost += Number(copies === 0);
      counts.lostAtHome += Number(copies === 0 && from === node.index);
    }
  }
  return counts;
}

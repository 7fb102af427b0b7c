// What clients notice when an engine, a node or a link between them fails. Each fault happens to a cluster of its own,
// under load, and its figures are a line of a table.
import assert from "node:assert/strict";
import { after, describe } from "node:test";
import { setTimeout as passing } from "node:timers/promises";
import { print } from "../support/table.js";
import { test } from "../support/test.js";
import { until } from "../support/until.js";
import { count, flowsSince, startCluster } from "./cluster.js";
import { missing, startEngine } from "./engines.js";

/** How long an answer may take, of a node that runs. */
const ANSWERED_MS = 2000;
/** After which messages flow again, and presence is right. */
const FLOW_MS = 1000;
const RIGHT_MS = 6000;
/** What a busy machine is granted beyond. */
const GRANTED_MS = Number(process.env.GRANTED_MS ?? 10_000);

const LONG = { timeout: 200_000 };

const COLUMNS = ["fault", "sent", "due", "received", "lost", "silent", "twice", "flow", "right", "answer", "stopped", "join", "interrupted", "rejoins"];

export function processes(name) {
  const skip = missing(name);
  const table = [];

  describe(`three processes over ${name}`, { skip }, () => {
    after(() => print(`over ${name}; times in ms`, COLUMNS, table));

    for (const seconds of process.env.CLUSTER === "full" ? [2, 12] : [2]) engineKilled(seconds);

    scenario("node killed with -9", async ({ cluster, figures }) => {
      const [node, other] = cluster.nodes;
      const orphans = cluster.on(node);
      const survivors = cluster.notOn(node);
      node.isUp = false;
      const died = (node.diedAt = Date.now());
      await node.kill();
      orphans.forEach((orphan) => orphan.moveTo(other));
      await flows(cluster, figures, died, survivors);
      await until("the orphans are there", () => orphans.every((orphan) => orphan.isThere()));
      figures.back = Date.now() - died;
      await right(cluster, figures, died);
      figures.check = ({ lost }) => assert.equal(lost, 0, "between nodes that live nothing is lost");
    });

    scenario("node stopped for 8 s", async ({ cluster, figures }) => {
      const [node] = cluster.nodes;
      const others = cluster.notOn(node);
      [node.isStopped, node.faultMs] = [true, 8000];
      node.signal("SIGSTOP");
      const stopped = Date.now();
      await right(cluster, figures, stopped, others, others);
      await passing(stopped + 8000 - Date.now());
      node.signal("SIGCONT");
      node.isStopped = false;
      const back = Date.now();
      await flows(cluster, figures, back);
      await right(cluster, figures, back);
    });

    scenario("link of a node cut for 3 s", async ({ cluster, figures, newcomers }) => {
      const [node, other] = cluster.nodes;
      const [unwanted] = cluster.on(node);
      node.link.cut();
      const joined = newcomers([node]);
      await other.post(`/disconnect?id=user_socket:${unwanted.user}`);
      await passing(3000);
      assert.deepEqual(unwanted.away, [], "a node that does not hear does not know");
      node.link.heal();
      const back = Date.now();
      await joined;
      await flows(cluster, figures, back, cluster.members.filter((member) => member !== unwanted));
      await until("the disconnect is carried out", () => unwanted.away.length > 0);
      await right(cluster, figures, back);
    });

    scenario("link of a node stalled for 8 s", async ({ cluster, figures, newcomers }) => {
      const [node] = cluster.nodes;
      const others = cluster.notOn(node);
      node.link.stall();
      const stalled = Date.now();
      await right(cluster, figures, stalled, others, others);
      const joined = newcomers([node]);
      await passing(stalled + 8000 - Date.now());
      node.link.heal();
      const back = Date.now();
      await joined;
      await flows(cluster, figures, back);
      await right(cluster, figures, back);
    });
  });

  function engineKilled(seconds) {
    scenario(`engine killed for ${seconds} s`, async ({ cluster, engine, figures, newcomers }) => {
      await engine.kill();
      const joined = newcomers(cluster.nodes);
      await passing(1000 * seconds);
      await engine.start();
      const back = Date.now();
      await joined;
      await flows(cluster, figures, back);
      await right(cluster, figures, back);
      figures.check = () => assert.deepEqual(leaves(cluster), [], "nobody leaves because an engine is away");
    });
  }

  /** Runs a fault in a cluster of its own, and judges what its clients have seen. */
  function scenario(fault, run) {
    test(`${fault}: nobody hangs, and all is well soon`, LONG, async (t) => {
      const engine = await startEngine(name);
      t.after(engine.stop);
      const cluster = await startCluster(t, engine);
      const figures = { fault };
      /** Clients that come during the fault. */
      const newcomers = (nodes) => Promise.all(nodes.map((node) => cluster.join(node)));
      table.push(figures);
      try {
        await run({ cluster, engine, figures, newcomers });
      } finally {
        await cluster.end();
        Object.assign(figures, count(cluster), waits(cluster));
      }
      judge(figures);
    });
  }
}

/** Waits until messages flow to these members. */
async function flows(cluster, figures, since, members = cluster.members) {
  await until("messages flow again", () => (figures.flow = flowsSince(cluster, since, members)) !== undefined);
}

/** Waits until these watchers see these members, and nobody else. */
async function right(cluster, figures, since, watchers = cluster.members, members = cluster.members) {
  const seen = () => `presence is right: ${members.length} users, and not ${watchers.map((one) => JSON.stringify(one.list()))}`;
  await until(seen, () => cluster.isRight(watchers, members));
  figures.right = Math.max(figures.right ?? 0, Date.now() - since);
}

/** Users who have left in the eyes of others, but for those whose session has a gap: they join again. */
function leaves({ members }) {
  const rejoined = members.filter(({ isKept }) => isKept).map(({ user }) => user);
  return [...new Set(members.flatMap(({ left }) => left))].filter((user) => !rejoined.includes(user));
}

/** The longest waits for an answer and for a join, and how often resumable sessions were asked to join again. */
function waits({ members }) {
  const longest = (times) => Math.max(0, ...times);
  const asked = members.flatMap(({ waits }) => waits);
  return {
    answers: asked.length,
    unanswered: asked.filter(({ status }) => status === "timeout").length,
    interrupted: asked.filter(({ status }) => status === "interrupted").length,
    answer: longest(asked.filter(({ node }) => !node.faultMs).map(({ ms }) => ms)),
    stopped: longest(asked.filter(({ node }) => node.faultMs).map(({ ms, node }) => ms - node.faultMs)),
    join: longest(members.flatMap(({ joins }) => joins.map(([, ms]) => ms))),
    refused: members.flatMap(({ joins }) => joins).filter(([status]) => status !== "ok").length,
    rejoins: members.reduce((sum, { rejoins }) => sum + rejoins, 0),
  };
}

function judge(figures) {
  const atMost = (what, ms, bound) => assert.ok(ms <= bound + GRANTED_MS, `${what}: ${ms} ms, more than ${bound} ms`);
  for (const never of ["unanswered", "refused", "twice", "lostAtHome", "silent"]) assert.equal(figures[never], 0, never);
  atMost("the slowest answer", Math.max(figures.answer, figures.stopped), ANSWERED_MS);
  atMost("the slowest join", figures.join, ANSWERED_MS);
  atMost("messages flow", figures.flow, FLOW_MS);
  atMost("presence is right", figures.right, RIGHT_MS);
  figures.check?.(figures);
}

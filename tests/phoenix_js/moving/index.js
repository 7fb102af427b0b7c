// A session on any node: clients behind a balancer that sends each connection and each request to another node, while
// connections are cut and nodes are restarted, killed or stopped. Each trouble happens to a cluster of its own, under
// load, and its figures are a row of a table.
import assert from "node:assert/strict";
import { after, describe } from "node:test";
import { setTimeout as passing } from "node:timers/promises";
import { missing as unavailable, startEngine } from "../cluster/engines.js";
import { knowEachOther, start, startNodes } from "../cluster/nodes.js";
import { write } from "../continuity/writers.js";
import { startBalancer } from "../support/balancer.js";
import { clients, unique } from "../support/client.js";
import { random } from "../support/random.js";
import { print } from "../support/table.js";
import { test } from "../support/test.js";
import { until } from "../support/until.js";
import { COLUMNS, HUNG_MS, count, lacks } from "./figures.js";
import { MODES, enter } from "./members.js";
import { watch } from "./watchers.js";

const FULL = process.env.MOVING === "full";
const VERSIONS = ["phoenix-1.8", "phoenix-1.8.0", "phoenix-1.7", "phoenix-1.6"];
/** Members of each kind, the time between their messages, and how often connections are cut. */
const [EACH, WRITE_EVERY_MS, CUTS] = FULL ? [3, 100, 20] : [1, 200, 6];
/** Part of the names of the only clients to run, such as `1.7` or `longpoll`. */
const ONLY = process.env.MOVING_ONLY ?? "";
const SHUTDOWN_MS = FULL ? 8000 : 3000;

/** What a busy machine is granted beyond every bound. */
const GRANTED_MS = Number(process.env.GRANTED_MS ?? 5000);
/** After which everybody has everything, or was told. */
const SETTLED_MS = 20_000;

export function moving(name) {
  const table = [];
  const seed = Number(process.env.MOVING_SEED ?? Date.now() % 1e6);

  describe(`a session on any node over ${name}`, { skip: unavailable(name) }, () => {
    after(() => print(`a session on any node, over ${name}; times in ms`, COLUMNS, table));

    scenario("connections cut", {}, async (world) => {
      await cut(world);
      return nobodyIsTold;
    });

    scenario("WebSockets blocked", { fallsBack: true }, async (world) => {
      const { balancer, members } = world;
      balancer.blockWebSockets(true);
      balancer.cut();
      await everyone(members, "are on long poll", (member) => member.isBack() && member.isOnLongPoll());
      await cut(world, CUTS / 2);
      balancer.blockWebSockets(false);
      const returning = members.filter(({ client, mode }) => client.overWebSocket && mode === "kept");
      await everyone(returning, "are back on WebSocket", (member) => member.isBack() && !member.isOnLongPoll());
      await cut(world, CUTS / 2);
      return nobodyIsTold;
    });

    scenario("rolling restart", {}, async ({ nodes, figures }) => {
      for (const node of nodes) {
        assert.equal(await node.stop(SHUTDOWN_MS + 10_000), 0, "a node ends by itself");
        await start(node);
        await knowEachOther(nodes);
      }
      return () => {
        nobodyIsTold(figures);
        assert.equal(figures.left, 0, "nobody leaves");
        assert.ok(figures.p99 <= 1000 + GRANTED_MS, `back and caught up: ${figures.p99} ms`);
      };
    });

    scenario("node killed with -9", {}, async (world) => {
      const [node] = world.nodes;
      node.isUp = false;
      await node.kill();
      await passing(2000);
    });

    scenario("node stopped for 8 s", {}, async (world) => {
      const [node] = world.nodes;
      node.signal("SIGSTOP");
      world.balancer.takeOut(node.index);
      await passing(8000);
      node.signal("SIGCONT");
      world.balancer.putIn(node.index);
    });

    scenario("engine killed for 2 s", {}, async (world) => {
      await world.engine.kill();
      await Promise.all([cut(world, CUTS / 2), passing(2000)]);
      await world.engine.start();
      await passing(1000);
    });
  });

  /** Runs a trouble in a cluster of its own, and judges what its clients have seen. */
  function scenario(what, options, run) {
    test(`${what}: nothing is lost, and nobody hangs`, { timeout: FULL ? 240_000 : 90_000 }, async (t) => {
      t.diagnostic(`MOVING_SEED=${seed}`);
      const figures = { what };
      const world = await startWorld(t, name, { ...options, dice: random(seed), figures });
      table.push(figures);
      let judgeToo;
      try {
        judgeToo = await run(world);
      } finally {
        const settled = settle(world);
        await settled.catch(() => {});
        Object.assign(figures, count(world, GRANTED_MS));
        await settled;
      }
      judge(figures);
      judgeToo?.(figures);
    });
  }
}

/** Starts an engine, three nodes, the balancer and all kinds of clients, which write. */
async function startWorld(t, name, { fallsBack, dice, figures }) {
  const engine = await startEngine(name);
  t.after(engine.stop);
  const nodes = await startNodes(t, engine, { SHUTDOWN_MS, WINDOW_MS: 2000 });
  const balancer = await startBalancer(nodes);
  t.after(() => balancer.stop());

  const all = (await Promise.all(VERSIONS.map((version) => clients(version, null)))).flat();
  const kinds = all.filter(({ name }) => name.includes(ONLY));
  const rooms = kinds.map((client) => ({ client, topic: unique("moving-") }));
  const topics = rooms.map(({ topic }) => topic);
  const [newest] = kinds;
  const watchers = await Promise.all(nodes.map((node) => watch(t, newest, node, topics)));
  const members = await Promise.all(
    rooms.flatMap(({ client, topic }) =>
      MODES.flatMap((mode) =>
        Array.from({ length: EACH }, () => enter(t, { client, mode, to: balancer, topic, fallsBack: fallsBack && client.overWebSocket })),
      ),
    ),
  );
  const world = { engine, nodes, balancer, watchers, members, dice, figures };
  const stops = members.map((member) => write(member, WRITE_EVERY_MS));
  world.stopWriting = () => stops.forEach((stop) => stop());
  t.after(world.stopWriting);
  await everyone(members, "receive", ({ arrivals }) => arrivals.length > 0);
  return world;
}

/** Cuts connections, each time about half of them. */
async function cut({ balancer, dice }, times = CUTS) {
  for (let n = 0; n < times; n += 1) {
    balancer.cut(() => dice(2) === 0);
    await passing(150 + dice(400));
  }
}

/** Ends the load, and waits until everybody has what was sent. */
async function settle({ nodes, members, watchers, stopWriting }) {
  const up = nodes.filter(({ isUp }) => isUp);
  const there = watchers.filter(({ node }) => node.isUp);
  const held = members.filter(({ isHeldToAll }) => isHeldToAll);
  stopWriting();
  await everyone(members, "are back", (member) => member.isBack());
  await everyone(members, "are answered", (member) => member.isAnswered());
  const lost = () => held.reduce((sum, member) => sum + lacks(member, watchers).length, 0);
  await until("everybody has everything", () => lost() === 0, SETTLED_MS).catch(() => {});
  await Promise.all(members.map((member) => member.leave()));

  const sum = (values) => values.reduce((total, value) => total + value, 0);
  let sessions;
  await until(
    () => `each client has one session: ${JSON.stringify(sessions)}`,
    async () => {
      sessions = await Promise.all(up.map((node) => node.get("/sessions")));
      const connected = sum(sessions.map(({ connected }) => connected));
      const detached = sum(sessions.map(({ detached }) => detached));
      return connected === members.length + there.length && detached === 0;
    },
    SETTLED_MS,
  );
  await everyone(members, "see each other", ({ topic, list }) => {
    const seen = list();
    const due = [...members.filter((member) => member.topic === topic), ...there].map(({ user }) => user);
    return due.length === Object.keys(seen).length && due.every((user) => seen[user] === 1);
  });
}

function judge(figures) {
  for (const never of ["lost", "twice", "order", "onOneConnection", "unheard", "hung"]) assert.equal(figures[never], 0, never);
  assert.ok(figures.answer <= HUNG_MS + GRANTED_MS, `the slowest answer: ${figures.answer} ms`);
}

const nobodyIsTold = ({ anew }) => assert.equal(anew, 0, "no session begins anew");

/** Waits until all of these are or do something. */
function everyone(members, what, condition) {
  let others = [];
  return until(
    () => `all ${what}, but not ${others.map(({ client, mode }) => `${client.name} (${mode})`)}`,
    async () => {
      const answers = await Promise.all(members.map(condition));
      others = members.filter((_, index) => !answers[index]);
      return others.length === 0;
    },
    SETTLED_MS,
  );
}

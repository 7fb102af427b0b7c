// Processes of the reference application that are one cluster over an engine.
import { unique } from "../support/client.js";
import { example, startServer } from "../support/server.js";
import { until } from "../support/until.js";
import { startLink } from "./link.js";

const NODES = 3;
const KNOWN_WITHIN_MS = 30_000;

/**
 * Starts the nodes, each with a link to the engine of its own unless they are `direct`, and returns them when they know
 * each other.
 */
export async function startNodes(t, engine, env = {}, { direct = false } = {}) {
  const app = unique("processes-");
  const nodes = await Promise.all(
    Array.from({ length: NODES }, async (_, index) => {
      const link = direct ? undefined : await startLink(engine.port);
      t.after(() => link?.stop());
      const node = { index, link, env: { ENGINE: engine.url(link?.host), APP: app, ...env } };
      await start(node);
      t.after(() => node.kill());
      return node;
    }),
  );
  await knowEachOther(nodes);
  return nodes;
}

/** Starts the process of a node, on the port that it had if there was one before. */
export async function start(node) {
  const { env, host: addr } = node;
  Object.assign(node, await startServer(example("reference"), { addr, env }), { isUp: true });
}

/** Waits until each of these nodes knows all, and nobody else. */
export function knowEachOther(nodes) {
  const knows = async (node) => (await node.get("/nodes")).length === nodes.length;
  const all = async () => (await Promise.all(nodes.map(knows))).every(Boolean);
  return until("the nodes know each other", all, KNOWN_WITHIN_MS);
}

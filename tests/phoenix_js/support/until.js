import { setTimeout as passing } from "node:timers/promises";

const WITHIN_MS = 15_000;

/** Waits until `condition` holds; otherwise throws an error that names `what` was awaited. */
export async function until(what, condition, withinMs = WITHIN_MS) {
  const deadline = Date.now() + withinMs;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`not within ${withinMs} ms: ${typeof what === "function" ? what() : what}`);
    await passing(10);
  }
}

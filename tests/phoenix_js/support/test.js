// node:test with a time limit per test; in Node 20, `--test-timeout` applies to whole files.
import { test as unbounded } from "node:test";

const WITHIN_MS = 40_000;

/** How many tests of a suite in a browser run at a time. Each has its own pages, and mostly waits; two cores have no room for three. */
export const AT_A_TIME = 2;

export function test(name, ...rest) {
  const run = rest.pop();
  const [options] = rest;
  return unbounded(name, { timeout: WITHIN_MS, ...options }, run);
}

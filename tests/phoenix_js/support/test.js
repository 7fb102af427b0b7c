// node:test with a time limit per test; in Node 20, `--test-timeout` applies to whole files.
import { test as unbounded } from "node:test";

const WITHIN_MS = 20_000;

export function test(name, ...rest) {
  const run = rest.pop();
  const [options] = rest;
  return unbounded(name, { timeout: WITHIN_MS, ...options }, run);
}

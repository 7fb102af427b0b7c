// Resumable sessions with one version of the package, over a network that cuts, refuses, truncates and swallows.
// Each part runs with the unmodified client, which sends `session` alone, and with `keepSession`.
import { after, describe } from "node:test";
import { clients } from "../support/client.js";
import { example, startServer } from "../support/server.js";
import { cases } from "./cases.js";
import { members } from "./members.js";
import { test as judged } from "../support/test.js";
import { storm } from "./storm.js";

/** `CONTINUITY=full` runs the long form; the short form finds plain defects. */
const FULL = process.env.CONTINUITY === "full";

export async function continuity(name, { judge = true } = {}) {
  const server = await startServer(example("reference"));
  after(() => server.stop());
  const test = judge ? judged : reported;
  for (const client of await clients(name, server)) {
    for (const kept of [false, true]) {
      const member = members(client, kept);
      describe(`${client.name}, ${kept ? "with keepSession" : "unmodified"}`, () => {
        storm(test, client, member, FULL);
        cases(test, client, member, FULL);
      });
    }
  }
}

/** Runs a test whose failure is reported but does not count. */
function reported(name, ...rest) {
  const run = rest.pop();
  return judged(name, { ...rest[0], todo: "reported, not judged" }, run);
}

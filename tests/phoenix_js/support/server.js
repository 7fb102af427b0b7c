// Starts and stops examples of this workspace. Examples take their address from ADDR and print `listening on ADDR`
// to stdout once they accept connections.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const STOP_WITHIN_MS = 5000;

/** Path of a built example: `$REFERENCE_BIN` for `reference`, `$CHAT_BIN` for `chat`, or cargo's debug build. */
export function example(name) {
  const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL("../../../target", import.meta.url));
  const path = process.env[`${name.toUpperCase()}_BIN`] ?? `${target}/debug/examples/${name}`;
  if (!existsSync(path)) throw new Error(`${path} is missing: run \`cargo build --example ${name}\` first`);
  return path;
}

/** Starts `binary`; pass `addr` only to restart on an address used before. */
export async function startServer(binary, { addr = "127.0.0.1:0", env = {} } = {}) {
  const child = spawn(binary, { env: { ...process.env, ...env, ADDR: addr }, stdio: ["ignore", "pipe", "pipe"] });
  const ended = once(child, "exit");
  const stderr = [];
  child.stderr.on("data", (chunk) => stderr.push(chunk));

  const lines = createInterface({ input: child.stdout });
  const host = await new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", (code) => reject(new Error(`${binary} ended with ${code}:\n${Buffer.concat(stderr)}`)));
    lines.on("line", (line) => {
      const match = /^listening on (?:http:\/\/)?([^\s/]+)/.exec(line);
      if (match) resolve(match[1]);
    });
  });

  return {
    host,
    port: Number(host.slice(host.lastIndexOf(":") + 1)),
    post: (path, body) => fetch(`http://${host}${path}`, { method: "POST", body: body && JSON.stringify(body) }),
    get: async (path) => (await fetch(`http://${host}${path}`)).json(),
    /** Sends a signal, such as `SIGSTOP`. */
    signal: (name) => child.kill(name),
    /** Kills the process without a word. */
    async kill() {
      child.kill("SIGKILL");
      await ended;
    },
    /** Asks the process to terminate, kills it after a timeout, and returns its exit code. */
    async stop(withinMs = STOP_WITHIN_MS) {
      child.kill("SIGTERM");
      const killTimer = setTimeout(() => child.kill("SIGKILL"), withinMs);
      const [code] = await ended;
      clearTimeout(killTimer);
      return code;
    },
  };
}

// Starts an example of this workspace and stops it again. Examples take their address from ADDR and say
// `listening on ADDR` on stdout once they accept connections.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const STOP_WITHIN_MS = 5000;

/** The built example: `$REFERENCE_BIN` for `reference`, `$CHAT_BIN` for `chat`, else cargo's debug build. */
export function example(name) {
  const target = process.env.CARGO_TARGET_DIR ?? fileURLToPath(new URL("../../../target", import.meta.url));
  const path = process.env[`${name.toUpperCase()}_BIN`] ?? `${target}/debug/examples/${name}`;
  if (!existsSync(path)) throw new Error(`${path} is missing: run \`cargo build --example ${name}\` first`);
  return path;
}

/** Starts `binary`; `addr` is given only to come back on an address used before. */
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
      const said = /^listening on (?:http:\/\/)?([^\s/]+)/.exec(line);
      if (said) resolve(said[1]);
    });
  });

  return {
    host,
    port: Number(host.slice(host.lastIndexOf(":") + 1)),
    post: (path, body) => fetch(`http://${host}${path}`, { method: "POST", body: body && JSON.stringify(body) }),
    /** Asks it to end, as an operator does, and insists after a while. Returns the exit code. */
    async stop() {
      child.kill("SIGTERM");
      const insist = setTimeout(() => child.kill("SIGKILL"), STOP_WITHIN_MS);
      const [code] = await ended;
      clearTimeout(insist);
      return code;
    },
  };
}

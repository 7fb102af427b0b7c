// The fault proxy (tests/fault_proxy): stands before a server and does what networks do, from a seed.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { example } from "./server.js";

/** `$FAULT_SEED` runs a failure again. */
export async function startFaultProxy(server, { seed = process.env.FAULT_SEED } = {}) {
  const env = { ...process.env, UPSTREAM: server.host, ADDR: "127.0.0.1:0", ...(seed && { SEED: seed }) };
  const child = spawn(example("fault_proxy"), { env, stdio: ["ignore", "pipe", "inherit"] });
  const said = {};
  for await (const line of createInterface({ input: child.stdout })) {
    const [, what, value] = /^(seed|control on|listening on) (\S+)$/.exec(line) ?? [];
    said[what] = value;
    if (what === "listening on") break;
  }

  const order = async (method, path, parameters = {}) => {
    const url = `http://${said["control on"]}/${path}?${new URLSearchParams(parameters)}`;
    const response = await fetch(url, { method });
    if (!response.ok) throw new Error(`${method} ${url}: ${response.status}`);
    return response.text();
  };
  const post = (path) => (parameters) => order("POST", path, parameters);

  return {
    host: said["listening on"],
    port: Number(said["listening on"].split(":").pop()),
    seed: said.seed,
    kill: post("kill"),
    reset: post("reset"),
    killEvery: post("kill_every"),
    refuse: (on) => order("POST", "refuse", { on: Number(on) }),
    refuseUpgrades: (on) => order("POST", "refuse_upgrades", { on: Number(on) }),
    truncate: post("truncate"),
    delay: (ms) => order("POST", "delay", { ms }),
    rate: (bytesPerSecond) => order("POST", "rate", { bytes_per_s: bytesPerSecond }),
    swallow: (direction, on) => order("POST", "swallow", { direction, on: Number(on) }),
    stats: async () => JSON.parse(await order("GET", "stats")),
    async stop() {
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
  };
}

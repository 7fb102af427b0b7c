// Starts the fault proxy (tests/fault_proxy), which simulates network faults in front of a server, from a seed.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { example } from "./server.js";

/** `$FAULT_SEED` reproduces a failure. */
export async function startFaultProxy(server, { seed = process.env.FAULT_SEED } = {}) {
  const env = { ...process.env, UPSTREAM: server.host, ADDR: "127.0.0.1:0", ...(seed && { SEED: seed }) };
  const child = spawn(example("fault_proxy"), { env, stdio: ["ignore", "pipe", "inherit"] });
  const addresses = {};
  for await (const line of createInterface({ input: child.stdout })) {
    const [, what, value] = /^(seed|control on|listening on) (\S+)$/.exec(line) ?? [];
    addresses[what] = value;
    if (what === "listening on") break;
  }

  const call = async (method, path, parameters = {}) => {
    const url = `http://${addresses["control on"]}/${path}?${new URLSearchParams(parameters)}`;
    const response = await fetch(url, { method });
    if (!response.ok) throw new Error(`${method} ${url}: ${response.status}`);
    return response.text();
  };
  const post = (path) => (parameters) => call("POST", path, parameters);

  return {
    host: addresses["listening on"],
    port: Number(addresses["listening on"].split(":").pop()),
    seed: addresses.seed,
    kill: post("kill"),
    reset: post("reset"),
    killEvery: post("kill_every"),
    refuse: (on) => call("POST", "refuse", { on: Number(on) }),
    refuseUpgrades: (on) => call("POST", "refuse_upgrades", { on: Number(on) }),
    truncate: post("truncate"),
    delay: (ms) => call("POST", "delay", { ms }),
    rate: (bytesPerSecond) => call("POST", "rate", { bytes_per_s: bytesPerSecond }),
    swallow: (direction, on) => call("POST", "swallow", { direction, on: Number(on) }),
    stats: async () => JSON.parse(await call("GET", "stats")),
    async stop() {
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
  };
}

// Starts what connects nodes: Redis, Valkey or NATS, on loopback. The programs are named by REDIS_SERVER,
// VALKEY_SERVER and NATS_SERVER.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { until } from "../support/until.js";

const redis = (scheme, variable) => ({
  variable,
  url: (host) => `${scheme}://${host}`,
  parameters: (port) => ["--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
  durable: { parameters: ["--appendonly", "yes", "--appendfsync", "always"], query: "?durable" },
  ask: "PING\r\n",
  answer: "+PONG",
});

const ENGINES = {
  redis: redis("redis", "REDIS_SERVER"),
  valkey: redis("redis", "VALKEY_SERVER"),
  nats: {
    variable: "NATS_SERVER",
    url: (host) => `nats://${host}`,
    parameters: (port) => ["-a", "127.0.0.1", "-p", port, "-js", "-sd", "."],
    ask: "",
    answer: "INFO ",
  },
};

/** Returns why an engine cannot be started, or `false`. In CI that is an error. */
export function missing(name) {
  const { variable } = ENGINES[name];
  if (process.env[variable]) return false;
  if (process.env.CI) throw new Error(`${variable} is not set`);
  return `${variable} is not set`;
}

/**
 * Starts an engine, and waits until it answers. One that is `durable` loses nothing of what it has acknowledged when it is killed, and
 * the nodes know; that of NATS always is.
 */
export async function startEngine(name, { isDurable = false } = {}) {
  const { variable, url, parameters, durable, ask, answer } = ENGINES[name];
  const more = (isDurable && durable) || { parameters: [], query: "" };
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), `${name}-`));
  let child;
  const kill = () => child.kill("SIGKILL");
  process.on("exit", kill);

  const engine = {
    port,
    /** The address of this engine, or of a proxy in front of it, as nodes take it. */
    url: (host = `127.0.0.1:${port}`) => url(host) + more.query,
    /** Kills it, and returns when it has ended. */
    async kill() {
      kill();
      if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    },
    /** Starts it on the same port, and returns when it answers. */
    async start() {
      child = spawn(process.env[variable], [...parameters(port), ...more.parameters].map(String), { cwd: folder, stdio: "ignore" });
      await until(`${name} answers`, () => answers(port, ask, answer));
    },
    async stop() {
      await engine.kill();
      process.off("exit", kill);
      rmSync(folder, { recursive: true, force: true });
    },
  };
  await engine.start();
  return engine;
}

function answers(port, ask, answer) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(ask));
    socket.once("data", (data) => resolve(data.toString().startsWith(answer)));
    socket.on("error", () => resolve(false));
    socket.on("close", () => resolve(false));
  }).finally(() => {});
}

/**
 * Returns a port that nothing listens on, below those that the system gives to clients: a client that connects to
 * such a port while nothing listens may be connected to itself.
 */
async function freePort() {
  for (;;) {
    const port = 12_000 + Math.floor(Math.random() * 20_000);
    const listener = createServer();
    const isFree = await new Promise((resolve) => {
      listener.once("error", () => resolve(false));
      listener.listen(port, "127.0.0.1", () => resolve(true));
    });
    listener.close();
    if (isFree) return port;
  }
}

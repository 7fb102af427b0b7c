// A page that only listens, over long poll, sleeps behind a proxy while the server is restarted: it must notice.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request as send } from "node:http";
import { unique, clients } from "./support/client.js";
import { called, collect, next, ok } from "./support/promises.js";
import { example, startServer } from "./support/server.js";
import { test } from "./support/test.js";
import { until } from "./support/until.js";

/** The default delays: older versions give up a connect that takes longer than the delay before it. */
const PATIENT = { reconnectAfterMs: undefined };
const SHORT_POLLS = { env: { WINDOW_MS: 200 } };

for (const version of ["phoenix-1.5", "phoenix-1.6", "phoenix-1.7", "phoenix-1.8.0", "phoenix-1.8.1", "phoenix-1.8"]) {
  const [, client] = await clients(version);
  for (const session of [undefined, "0123456789abcdefghijkl"]) {
    const kind = session ? "a resumable session" : "a plain session";
    test(`${client.name} rejoins after a restart that it slept through, in ${kind}`, async (t) => {
      const first = await startServer(example("reference"), SHORT_POLLS);
      const proxy = await startSleepyProxy(first);
      t.after(proxy.stop);
      const params = { user_id: unique("user"), ...(session && { session }) };
      const socket = client.connect(t, { to: proxy, params, ...PATIENT });
      const room = socket.channel(unique("room:"));
      await Promise.all([next(room, "joined"), ok(room.join())]);

      await proxy.sleep();
      await first.stop();
      const second = await startServer(example("reference"), SHORT_POLLS);
      t.after(() => second.stop());
      const [joined, connects] = [next(room, "joined"), proxy.connects];
      proxy.wake(second);
      await joined;
      const news = collect(room, "news");
      await until("news arrive", async () => {
        await second.post("/broadcast", { topic: room.topic, event: "news", payload: { n: 1 } });
        return news.length > 0;
      });
      assert.ok(proxy.connects - connects <= 5, `${proxy.connects - connects} connects`);
    });
  }
}

test("a client between two servers without sticky sessions connects about once a second", async (t) => {
  const [, client] = await clients("phoenix-1.8");
  const servers = await Promise.all([0, 1].map(() => startServer(example("reference"), SHORT_POLLS)));
  t.after(() => Promise.all(servers.map((server) => server.stop())));
  const proxy = await startSleepyProxy(servers[0]);
  t.after(proxy.stop);
  proxy.alternate(servers);
  const socket = client.connect(t, { to: proxy, ...PATIENT });
  await called((f) => socket.onOpen(f));
  await new Promise((passed) => setTimeout(passed, 3000));
  assert.ok(proxy.connects <= 8, `${proxy.connects} connects in 3 s`);
});

/** Starts an HTTP proxy that can hold all requests back until another server is there. */
async function startSleepyProxy(server) {
  let target = () => server;
  let held = null; // requests, while asleep
  let forwarded = 0;
  const proxy = { connects: 0 };

  const listener = createServer((request, response) => {
    if (held) held.push([request, response]);
    else forward(request, response);
  });

  function forward(request, response) {
    const { searchParams } = new URL(request.url, "http://host");
    if (request.method === "GET" && ["", "null", null].includes(searchParams.get("token"))) proxy.connects += 1;
    forwarded += 1;
    const done = () => (forwarded -= 1);
    const options = { host: "127.0.0.1", port: target().port, method: request.method, path: request.url };
    const upstream = send({ ...options, headers: request.headers, agent: false }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response).on("close", done);
    });
    upstream.on("error", () => {
      done();
      response.destroy();
    });
    request.pipe(upstream);
  }

  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  return Object.assign(proxy, {
    port,
    host: `127.0.0.1:${port}`,
    /** Holds requests back, and waits for the answers to earlier ones. */
    async sleep() {
      held = [];
      await until("the earlier polls are answered and the next one waits", () => forwarded === 0 && held.length > 0);
    },
    /** Sends the requests that waited, and all later ones, to this server. */
    wake(other) {
      target = () => other;
      const waited = held;
      held = null;
      for (const [request, response] of waited) forward(request, response);
    },
    /** Sends each request to the next of these servers. */
    alternate(servers) {
      let turn = 0;
      target = () => servers[(turn += 1) % servers.length];
    },
    stop() {
      listener.close();
      listener.closeAllConnections();
    },
  });
}

// A balancer on loopback without stickiness: each connection of a WebSocket and each single request of a long poll goes
// to the next server. It leaves out servers that refuse connections, and misbehaves on demand.
import { once } from "node:events";
import http from "node:http";
import { connect } from "node:net";

const MAX_BODY = 2 << 20;
/** How long all servers may refuse connections before a request is answered 502. */
const RETRIED_MS = 2000;
const RETRY_EVERY_MS = 20;

/** Starts the balancer. `servers` have ports, and are tried in turn. */
export async function startBalancer(servers) {
  const backends = servers.map(({ port }) => ({ port, isIn: true, requests: 0, webSockets: 0 }));
  const sockets = new Set(); // of clients and to servers
  const agent = new http.Agent({ keepAlive: false, maxSockets: Infinity });
  let turn = 0;
  let delayMs = 0;
  let isBlocking = false;
  let isOver = false;
  const cuts = []; // their times
  const turnedAway = new Map(); // by user, since the last cut
  let mostTurnedAway = 0;

  function track(socket, backend) {
    socket.backend = backend;
    socket.setNoDelay(true);
    sockets.add(socket);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => sockets.delete(socket));
    return socket;
  }

  /** Calls `attempt` with one backend after the other until one does not refuse the connection. */
  async function next(attempt) {
    const deadline = Date.now() + RETRIED_MS;
    for (let tries = 1; !isOver; tries += 1) {
      const backend = backends[(turn += 1) % backends.length];
      if (backend.isIn) {
        try {
          return await attempt(backend);
        } catch (error) {
          if (error.code !== "ECONNREFUSED") throw error;
        }
      }
      if (tries % backends.length > 0) continue;
      if (Date.now() > deadline) break;
      await passing(RETRY_EVERY_MS);
    }
    throw new Error("no server");
  }

  const listener = http.createServer(async (request, response) => {
    try {
      const body = await read(request);
      await passing(delayMs);
      const answer = await next((backend) => ask(backend, request, body));
      await passing(delayMs);
      response.writeHead(answer.statusCode, withoutHop(answer.headers)).end(answer.body);
    } catch {
      if (response.destroyed) return;
      response.writeHead(502).end();
    }
  });

  function ask(backend, { method, url, headers, socket: client }, body) {
    return new Promise((resolve, reject) => {
      const options = { agent, host: "127.0.0.1", port: backend.port, method, path: url, headers: withoutHop(headers) };
      const request = http.request(options, async (response) => {
        backend.requests += 1;
        try {
          resolve(Object.assign(response, { body: await read(response) }));
        } catch (error) {
          reject(error);
        }
      });
      const gone = () => request.destroy(new Error("the client is gone"));
      client.once("close", gone);
      request.on("socket", (socket) => track(socket, backend));
      request.on("error", reject);
      request.on("close", () => client.off("close", gone));
      request.end(body);
    });
  }

  listener.on("upgrade", async (request, client, head) => {
    track(client);
    if (isBlocking) return client.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    try {
      const server = await next(connectTo);
      server.backend.webSockets += 1;
      client.backend = server.backend;
      client.on("close", () => server.destroy());
      server.on("close", () => client.end());
      countTurnedAway(request.url, client, server);
      if (client.destroyed) return server.destroy();
      server.write(headOf(request));
      if (head.length) server.write(head);
      forward(client, server);
      forward(server, client);
    } catch {
      client.destroy();
    }
  });

  function countTurnedAway(url, client, server) {
    const user = new URL(url, "ws://balancer").searchParams.get("user_id");
    let chunks = 0;
    server.on("data", () => (chunks += 1));
    const ended = () => {
      const hasOnlyHead = chunks <= 1;
      chunks = Infinity; // once is enough
      if (!hasOnlyHead || server.isCut || client.readableEnded || client.destroyed) return;
      const times = (turnedAway.get(user) ?? 0) + 1;
      turnedAway.set(user, times);
      mostTurnedAway = Math.max(mostTurnedAway, times);
    };
    server.on("end", ended);
    server.on("close", ended);
  }

  async function connectTo(backend) {
    const socket = track(connect(backend.port, "127.0.0.1"), backend);
    await new Promise((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
      socket.once("close", () => reject(new Error("the connection was cut")));
    });
    return socket;
  }

  function forward(from, to) {
    let late = Promise.resolve();
    let waiting = 0;
    const inTurn = (write) => {
      if (!delayMs && !waiting) return write();
      const dueAt = Date.now() + delayMs;
      waiting += 1;
      late = late.then(() => passing(dueAt - Date.now())).then(() => {
        waiting -= 1;
        write();
      });
    };
    from.on("end", () => inTurn(() => to.end()));
    from.on("data", (data) =>
      inTurn(() => {
        if (to.write(data)) return;
        from.pause();
        to.once("drain", () => from.resume());
      }),
    );
  }

  listener.on("connection", (socket) => track(socket));
  listener.keepAliveTimeout = 60_000;
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const { port } = listener.address();
  function cut(which = () => true) {
    cuts.push(Date.now());
    turnedAway.clear();
    for (const socket of [...sockets].filter(which)) {
      socket.isCut = true;
      socket.destroy();
    }
  }

  return {
    port,
    host: `127.0.0.1:${port}`,
    /** For each server, the answered requests and the WebSockets that it was given. */
    counts: () => backends.map(({ requests, webSockets }) => ({ requests, webSockets })),
    /** Cuts the connections that `chosen` picks, by default all. */
    cut: (chosen) => cut(chosen),
    /** When connections were cut. */
    cuts,
    /** The most WebSockets of one user between two cuts that a server has refused, or ended without a message. */
    mostTurnedAway: () => mostTurnedAway,
    /** Gives nothing more to a server, and cuts its connections, as a failed health check does. */
    takeOut(index) {
      backends[index].isIn = false;
      cut(({ backend }) => backend === backends[index]);
    },
    putIn: (index) => (backends[index].isIn = true),
    /** Delays everything, in both directions. */
    delay: (ms) => (delayMs = ms),
    /** Answers WebSockets with 403. */
    blockWebSockets: (on) => (isBlocking = on),
    stop() {
      isOver = true;
      listener.close();
      cut();
    },
  };
}

const passing = (ms) => ms > 0 && new Promise((resolve) => setTimeout(resolve, ms));

async function read(stream) {
  const chunks = [];
  let length = 0;
  for await (const chunk of stream) {
    if ((length += chunk.length) > MAX_BODY) throw new Error("the body is too long");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** Without the headers that belong to one connection; bodies are sent whole. */
function withoutHop({ connection, "transfer-encoding": coding, "keep-alive": kept, ...headers }) {
  return headers;
}

/** The head of a request as it came. */
function headOf({ method, url, rawHeaders }) {
  const lines = [`${method} ${url} HTTP/1.1`];
  for (let index = 0; index < rawHeaders.length; index += 2) lines.push(`${rawHeaders[index]}: ${rawHeaders[index + 1]}`);
  return `${lines.join("\r\n")}\r\n\r\n`;
}

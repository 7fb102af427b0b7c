// The balancer of the `moving` suites, in front of servers that say who they are.
import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { WebSocket, WebSocketServer } from "ws";
import { startBalancer } from "./support/balancer.js";
import { test } from "./support/test.js";

test("requests of one connection go to one server after the other, with their bodies", async (t) => {
  const { url } = await behindBalancer(t);
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const answers = [];
  for (const body of ["a", "b", "c"]) answers.push(await request(`http://${url}/?q=${body}`, { agent, method: "POST" }, body));
  assert.deepEqual(answers.map(({ text }) => text.slice(2)).sort(), ["POST /?q=a a", "POST /?q=b b", "POST /?q=c c"]);
  assert.deepEqual(answers.map(({ text }) => text[0]).sort(), ["0", "1", "2"]);
});

test("WebSockets go to one server after the other", async (t) => {
  const { url } = await behindBalancer(t);
  const answers = [];
  for (let n = 0; n < 3; n += 1) answers.push(await greeting(t, url));
  assert.deepEqual(answers.sort(), ["0", "1", "2"]);
});

test("a server that refuses connections is left out, and one that was taken out is cut off", async (t) => {
  const { url, servers, balancer } = await behindBalancer(t);
  servers[1].close();
  servers[1].closeAllConnections();
  const [socket, closed] = await connected(t, url, "0");
  balancer.takeOut(0);
  await closed;
  assert.equal(socket.readyState, WebSocket.CLOSED);
  for (let n = 0; n < 4; n += 1) assert.match((await request(`http://${url}/`)).text, /^2/);
  balancer.putIn(0);
  const answers = await Promise.all([1, 2, 3, 4].map(() => request(`http://${url}/`)));
  assert.deepEqual(new Set(answers.map(({ text }) => text[0])), new Set(["0", "2"]));
});

test("it cuts connections, delays both directions in order, and blocks WebSockets", async (t) => {
  const { url, balancer } = await behindBalancer(t);
  const [socket, closed] = await connected(t, url);
  balancer.delay(100);
  const sent = Date.now();
  const texts = [];
  socket.on("message", (data) => texts.push(String(data)));
  for (const text of ["a", "b"]) socket.send(text);
  await once(socket, "message");
  assert.ok(Date.now() - sent >= 199);
  balancer.delay(0);
  socket.send("c");
  while (texts.length < 3) await once(socket, "message");
  assert.deepEqual(texts, ["a", "b", "c"]);
  balancer.cut();
  await closed;
  balancer.blockWebSockets(true);
  const [error] = await once(new WebSocket(`ws://${url}/`), "error");
  assert.match(error.message, /403/);
  assert.equal((await request(`http://${url}/`)).status, 200);
});

test("it counts how often a user is refused, or let in without a word, between two cuts", async (t) => {
  const webSockets = new WebSocketServer({ noServer: true });
  const server = http.createServer();
  server.on("upgrade", (request, socket, head) => {
    const { pathname } = new URL(request.url, "ws://server");
    if (pathname === "/refused") return socket.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
    webSockets.handleUpgrade(request, socket, head, (webSocket) => {
      if (pathname === "/ended") return socket.destroy();
      webSocket.send("welcome");
      if (pathname === "/closed") webSocket.close();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const balancer = await startBalancer([server.address()]);
  t.after(() => balancer.stop());
  const comeTo = async (path, user) => {
    const socket = new WebSocket(`ws://${balancer.host}/${path}?user_id=${user}`);
    socket.on("error", () => {});
    if (path === "left") socket.on("message", () => socket.close());
    if (path === "cut") socket.on("message", () => balancer.cut());
    await new Promise((resolve) => socket.on("close", resolve));
    return balancer.mostTurnedAway();
  };
  assert.equal(await comeTo("closed", "ann"), 0);
  assert.equal(await comeTo("left", "ann"), 0);
  assert.equal(await comeTo("cut", "ann"), 0);
  assert.equal(await comeTo("refused", "ann"), 1);
  assert.equal(await comeTo("refused", "bob"), 1);
  assert.equal(await comeTo("ended", "ann"), 2);
  await comeTo("cut", "bob");
  assert.equal(await comeTo("ended", "ann"), 2);
  assert.equal(balancer.cuts.length, 2);
});

/** Three servers that answer with their number and the request, and whose WebSockets greet with the number and echo. */
async function behindBalancer(t) {
  const servers = await Promise.all([0, 1, 2].map((index) => startServer(t, index)));
  const balancer = await startBalancer(servers.map((server) => server.address()));
  t.after(() => balancer.stop());
  return { servers, balancer, url: balancer.host };
}

async function startServer(t, index) {
  const server = http.createServer(async (request, response) => {
    const body = await text(request).catch(() => null);
    if (body === null) return; // the connection was cut
    response.end(`${index} ${request.method} ${request.url} ${body}`);
  });
  const webSockets = new WebSocketServer({ server });
  webSockets.on("connection", (socket) => {
    socket.send(String(index));
    socket.on("message", (data) => socket.send(String(data)));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    server.closeAllConnections();
    webSockets.clients.forEach((socket) => socket.terminate());
  });
  return server;
}

/** Connects a WebSocket, to the server with this number if one is given, and resolves when it was greeted. */
async function connected(t, url, wanted) {
  for (;;) {
    const socket = new WebSocket(`ws://${url}/`);
    t.after(() => socket.terminate());
    const closed = once(socket, "close");
    const [number] = await once(socket, "message");
    if (!wanted || String(number) === wanted) return [socket, closed, String(number)];
    socket.terminate();
  }
}

const greeting = async (t, url) => (await connected(t, url))[2];

async function text(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

function request(url, options = {}, body = "") {
  return new Promise((resolve, reject) => {
    const request = http.request(url, options, (response) => {
      text(response).then((text) => resolve({ status: response.statusCode, text }), reject);
    });
    request.on("error", reject);
    request.end(body);
  });
}

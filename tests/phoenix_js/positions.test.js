// The npm package in `client/`: how `keepSession` remembers where it is in the history of a topic, with each version of
// phoenix.js, against a scripted server.
import assert from "node:assert/strict";
import { describe } from "node:test";
import { keepSession } from "../../client/index.js";
import { clients } from "./support/client.js";
import { called, collect, ok } from "./support/promises.js";
import { startScripted } from "./support/scripted.js";
import { test } from "./support/test.js";
import { until } from "./support/until.js";

const TOPIC = "log:1";
const EPOCH = "AAAAAAAAAAE";
const message = (ref, n, event = "news") => JSON.stringify([null, ref, TOPIC, event, { n }]);
/** A binary message, as a push with the position in place of the join_ref. */
const bytes = (position, text) => {
  const mark = `p:${position}`;
  return Buffer.concat([Buffer.from([0, mark.length, TOPIC.length, 4]), Buffer.from(`${mark}${TOPIC}news${text}`)]);
};

for (const version of ["phoenix-1.5", "phoenix-1.6", "phoenix-1.7", "phoenix-1.8.0", "phoenix-1.8"]) {
  for (const client of await clients(version)) describe(client.name, () => remembering(client));
}

function remembering(client) {
  test("a connection asks for positions, and a join names the last one", async (t) => {
    const { server, room } = await joined(t);
    assert.equal(server.connects[0].params.positions, "all");
    const news = collect(room, "news");
    server.send(message(`s:1:${EPOCH}.7`, 1));
    server.send(message(`s:2:${EPOCH}.12`, 2));
    await until("both have arrived", () => news.length === 2);
    await rejoined(server);
    assert.deepEqual(named(server), [undefined, `${EPOCH}.12`]);
    assert.equal(server.connects.at(-1).params.received, "2");
  });

  test("so does one of a session that numbers nothing", async (t) => {
    const { server, room } = await joined(t);
    const news = collect(room, "news");
    server.send(message(`p:${EPOCH}.7`, 1));
    await until("it has arrived", () => news.length === 1);
    await rejoined(server);
    assert.deepEqual(named(server), [undefined, `${EPOCH}.7`]);
    assert.equal(server.connects.at(-1).params.received, "0");
  });

  test("a join without messages names the position that the server has sent, which phoenix.js does not see", async (t) => {
    const { server, socket, room } = await joined(t);
    const events = [];
    socket.onMessage(({ event }) => events.push(event));
    const news = collect(room, "news");
    server.send(message(`s:1:${EPOCH}.5`, 1, "phx_position"));
    server.send(message("s:2", 2));
    await until("the last has arrived", () => news.length === 1);
    assert.deepEqual(events, ["news"]);
    await rejoined(server);
    assert.deepEqual(named(server), [undefined, `${EPOCH}.5`]);
  });

  test("what stands at the last position or before it is dropped, and its number counts", async (t) => {
    const { server, room } = await joined(t);
    const news = collect(room, "news");
    const large = "9007199254740993";
    const sent = [`${EPOCH}.9`, `${EPOCH}.9`, `${EPOCH}.10`, `${EPOCH}.9`, `${EPOCH}.${large}`, `${EPOCH}.9007199254740992`];
    sent.push("AAAAAAAAAAI.3", "AAAAAAAAAAI.3", "AAAAAAAAAAI.4");
    sent.forEach((position, n) => server.send(message(`s:${n + 1}:${position}`, n)));
    server.send(message(`s:${sent.length + 1}`, "last"));
    await until("the last has arrived", () => news.at(-1)?.n === "last");
    assert.deepEqual(news.map(({ n }) => n), [0, 2, 4, 6, 8, "last"]);
    await rejoined(server);
    assert.equal(server.connects.at(-1).params.received, String(sent.length + 1));
    assert.equal(named(server).at(-1), "AAAAAAAAAAI.4");
  });

  test("a binary message stands somewhere, too", async (t) => {
    const { server, room } = await joined(t);
    const news = collect(room, "news");
    server.send(message(`s:1:${EPOCH}.1`, 1));
    server.send(bytes(`${EPOCH}.2`, "two"));
    server.send(bytes(`${EPOCH}.2`, "again"));
    server.send(message(`s:4:${EPOCH}.3`, 3));
    await until("the last has arrived", () => news.at(-1)?.n === 3);
    assert.deepEqual(news.map((payload) => payload.n ?? Buffer.from(payload).toString()), [1, "two", 3]);
    server.send(bytes(`${EPOCH}.4`, "four"));
    await until("it has arrived", () => news.length === 4);
    await rejoined(server);
    assert.equal(server.connects.at(-1).params.received, "5");
    assert.equal(named(server).at(-1), `${EPOCH}.4`);
  });

  test("phoenix.js sees null in place of the position", async (t) => {
    const { server, socket } = await joined(t);
    const received = [];
    socket.onMessage(({ event, ref, join_ref: joinRef }) => event === "news" && received.push([ref, joinRef]));
    server.send(message(`p:${EPOCH}.1`, 1));
    server.send(bytes(`${EPOCH}.2`, "two"));
    await until("both have arrived", () => received.length === 2);
    assert.deepEqual(received, [[null, null], [null, null]]);
  });

  test("a channel that is left is forgotten, and one whose join timed out is not", async (t) => {
    const { server, socket, room } = await joined(t);
    const news = collect(room, "news");
    server.send(message(`s:1:${EPOCH}.1`, 1));
    await until("it has arrived", () => news.length === 1);
    server.ignores = ([, , , event]) => event === "phx_join";
    await rejoined(server);
    room.joinPush.trigger("timeout", {}); // as after ten seconds
    await until("it has joined again", () => named(server).length >= 3);
    assert.deepEqual([...new Set(named(server))], [undefined, `${EPOCH}.1`]);
    server.ignores = () => false;
    await until("it is back", () => room.state === "joined");
    const left = called((f) => room.leave().receive("ok", f));
    server.send(message(`s:2:${EPOCH}.2`, 2));
    await left;
    await ok(socket.channel(TOPIC).join());
    assert.equal(named(server).at(-1), undefined);
  });

  test("before version 2 of the protocol the position is a field of the join", async (t) => {
    const encode = (data, done) => done(JSON.stringify(data));
    const decode = (text, done) => done(JSON.parse(text));
    const { server, room } = await joined(t, { vsn: "1.0.0", encode, decode });
    const news = collect(room, "news");
    const ref = `s:1:${EPOCH}.1`;
    server.send(JSON.stringify({ topic: TOPIC, event: "news", payload: { n: 1 }, ref }));
    await until("it has arrived", () => news.length === 1);
    await rejoined(server);
    assert.deepEqual(named(server), [undefined, `${EPOCH}.1`]);
  });

  test("an encoder of the application's is used", async (t) => {
    const encode = (data, done) => {
      const { join_ref: joinRef, ref, topic, event, payload } = data;
      done(JSON.stringify([joinRef, ref, topic, event, { ...payload, custom: true }]));
    };
    const { server, room } = await joined(t, { encode });
    const news = collect(room, "news");
    server.send(message(`s:1:${EPOCH}.1`, 1));
    await until("it has arrived", () => news.length === 1);
    await rejoined(server);
    const [join] = joins(server).slice(-1);
    assert.deepEqual(join.slice(4), [{ custom: true }, { after: `${EPOCH}.1` }]);
  });

  async function joined(t, options = {}) {
    const server = await startScripted();
    t.after(server.stop);
    const socket = client.connect(t, { to: server, keep: keepSession, ...options });
    const room = socket.channel(TOPIC);
    await ok(room.join());
    return { server, socket, room };
  }
}

function joins(server) {
  return server.messages.map(({ message }) => message).filter(([, , , event]) => event === "phx_join");
}

/** The positions that joins have named. */
function named(server) {
  return joins(server).map(([, , , , , more]) => more?.after);
}

/** Cuts the connection, and waits until the channel is joined again. */
async function rejoined(server) {
  const before = joins(server).length;
  server.cut();
  await until("it has joined again", () => joins(server).length > before);
}

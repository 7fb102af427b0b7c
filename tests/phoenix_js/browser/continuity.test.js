// The storm test of `continuity/` in a real browser, with its own WebSocket, fetch and request retries.
import { after, before, describe } from "node:test";
import { newId } from "../continuity/members.js";
import { storm } from "../continuity/storm.js";
import { launch, servePage } from "../support/browser.js";
import { unique } from "../support/client.js";
import { example, startServer } from "../support/server.js";
import { test } from "../support/test.js";

const FULL = process.env.CONTINUITY === "full";

const client = { overWebSocket: true, can: { changeTransport: true, batchOverLongPoll: true } };
let pages, browser;
before(async () => {
  [client.server, pages, browser] = await Promise.all([startServer(example("reference")), servePage(), launch()]);
});
after(() => Promise.all([client.server?.stop(), pages?.stop(), browser?.close()]));

for (const kept of [false, true]) {
  describe(`the newest client in Chromium, ${kept ? "with keepSession" : "unmodified"}`, () => {
    storm(test, client, Object.assign(member, { kept }), FULL);

    /** Joins `topic` as a member in a new page. */
    async function member(t, { to, topic, user = unique("user"), longPollFallbackMs }) {
      const page = await browser.newPage();
      t.after(() => page.close());
      const received = { new_msg: [], joined: [] };
      const unsent = [];
      let state = {};
      await page.exposeFunction("onReceived", (event, payload) => received[event].push(payload));
      await page.exposeFunction("onUnsent", (pushes) => void unsent.push(...pushes));
      await page.exposeFunction("onState", (now) => (state = now));
      await page.goto(`http://127.0.0.1:${pages.port}/`);
      const params = kept ? { user_id: user } : { user_id: user, session: newId() };
      await page.evaluate(join, { url: `ws://${to.host}/socket`, topic, kept, options: { params, longPollFallbackMs } });
      // Replies stay in the page.
      const push = (...push) => {
        page.evaluate((push) => void room.push(...push), push).catch(() => {});
        return { receive() {} };
      };
      const ask = (timeout) => page.evaluate((timeout) => askRoom(timeout), timeout).catch(() => "closed");
      const isAnswered = async () => (await ask()) === "ok";
      const [isThere, isOnLongPoll] = [() => state.isThere, () => state.isOnLongPoll];
      return { user, received, unsent, room: { push }, ask, isAnswered, isThere, isOnLongPoll };
    }
  });
}

/** Runs in the page and reports received messages and the state of the socket. */
async function join({ url, topic, kept, options }) {
  const { keepSession } = await import("/client/index.js");
  const base = { ...options, timeout: 8000, reconnectAfterMs: () => 20, rejoinAfterMs: () => 20 };
  const soon = { returnAfterMs: () => 200, steadyAfterMs: 200 };
  const socket = new Phoenix.Socket(url, kept ? keepSession({ ...base, ...soon, onUnsent }) : base);
  const room = (window.room = socket.channel(topic));
  for (const event of ["new_msg", "joined"]) room.on(event, (payload) => onReceived(event, payload));
  window.askRoom = (timeout) =>
    new Promise((done) => {
      const ping = room.push("ping", {}, timeout);
      for (const status of ["ok", "error", "timeout"]) ping.receive(status, () => done(status));
    });
  const isOnLongPoll = () => socket.transport === Phoenix.LongPoll;
  const isThere = () => socket.isConnected() && room.state === "joined";
  setInterval(() => onState({ isThere: isThere(), isOnLongPoll: isOnLongPoll() }), 50);
  socket.connect();
  await new Promise((joined) => room.join().receive("ok", joined));
}

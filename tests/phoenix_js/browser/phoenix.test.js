// The newest official client in a real browser, with origins, preflights and the browser's own WebSocket and
// XMLHttpRequest.
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { launch, SCRIPT, servePage } from "../support/browser.js";
import { unique } from "../support/client.js";
import { example, startServer } from "../support/server.js";
import { AT_A_TIME, test } from "../support/test.js";

describe("the newest client in Chromium", { concurrency: AT_A_TIME }, () => {
  let server, pages, browser;
  before(async () => {
    [server, pages, browser] = await Promise.all([
      startServer(example("reference")),
      servePage(),
      launch({ hosts: ["example.com", "evil.test"] }),
    ]);
  });
  after(() => Promise.all([server?.stop(), pages?.stop(), browser?.close()]));

  const allowed = {
    "of the server itself": () => `http://${server.host}/health`,
    "of another port": () => `http://127.0.0.1:${pages.port}/`,
    "of localhost": () => `http://localhost:${pages.port}/`,
    "of another, allowed site": () => `http://example.com:${pages.port}/`,
  };

  for (const transport of ["WebSocket", "LongPoll"]) {
    for (const [whose, url] of Object.entries(allowed)) {
      test(`a page ${whose} joins, pushes and receives from others over ${transport}`, async (t) => {
        const topic = unique("room:");
        const [ann, bob] = await Promise.all([open(t, url()), open(t, url())]);
        for (const page of [ann, bob]) assert.equal(await join(page, topic, transport), "ok");

        assert.deepEqual(await ann.evaluate(() => answer("ping", { n: 1 })), ["ok", { n: 1 }]);
        await ann.evaluate(() => room.push("new_msg", { text: "hello" }));
        for (const page of [ann, bob]) assert.deepEqual(await page.evaluate(() => news), { text: "hello" });
      });
    }

    test(`a page of a site that is not allowed gets an error and cannot join over ${transport}`, async (t) => {
      const page = await open(t, `http://evil.test:${pages.port}/`);
      assert.equal(await join(page, unique("room:"), transport), "refused");
      assert.equal(await page.evaluate(() => room.state), "errored");
    });

    test(`a reloaded page rejoins over ${transport}`, async (t) => {
      const topic = unique("room:");
      const page = await open(t, allowed["of another port"]());
      assert.equal(await join(page, topic, transport), "ok");
      await page.reload();
      assert.equal(await join(page, topic, transport), "ok");
    });

    test(`a page disconnected by id rejoins over ${transport}`, async (t) => {
      const user = unique("user");
      const page = await open(t, allowed["of another, allowed site"]());
      assert.equal(await join(page, unique("room:"), transport, user), "ok");
      await page.evaluate(() => answer("ping"));
      await page.evaluate(() => void (window.again = new Promise((resolve) => room.on("joined", resolve))));
      await server.post(`/disconnect?id=user_socket:${user}`);
      assert.deepEqual(await page.evaluate(() => again), { user_id: user });
    });
  }

  test("a page sends and receives binary over WebSocket", async (t) => {
    const page = await open(t, allowed["of another port"]());
    await join(page, unique("room:"), "WebSocket");
    const answered = await page.evaluate(async () => {
      const [status, buffer] = await answer("ping", Uint8Array.of(0, 128, 255).buffer);
      return [status, ...new Uint8Array(buffer)];
    });
    assert.deepEqual(answered, ["ok", 0, 128, 255]);
  });

  test("a page sends binary over LongPoll", async (t) => {
    const page = await open(t, allowed["of another, allowed site"]());
    await join(page, unique("room:"), "LongPoll");
    assert.deepEqual(await page.evaluate(() => answer("ack", Uint8Array.of(0, 128, 255).buffer)), ["ok", {}]);
  });

  test("a page with an auth token joins from another site over both transports", async (t) => {
    for (const transport of ["WebSocket", "LongPoll"]) {
      const page = await open(t, allowed["of another, allowed site"]());
      assert.equal(await join(page, unique("room:"), transport, "ann", "a secret"), "ok");
    }
  });

  /** Opens a page at `url` with the official package. */
  async function open(t, url) {
    const page = await browser.newPage();
    t.after(() => page.close());
    await page.goto(url);
    if (!(await page.evaluate(() => "Phoenix" in window))) await page.addScriptTag({ path: SCRIPT });
    return page;
  }

  /** Joins in the page and defines the globals `room`, `news` (the next message) and `answer`. */
  function join(page, topic, transport, user, authToken) {
    const connect = ({ url, topic, transport, user, authToken }) =>
      new Promise((resolve) => {
        const socket = new Phoenix.Socket(url, {
          transport: transport === "LongPoll" ? Phoenix.LongPoll : window.WebSocket,
          params: user ? { user_id: user } : {},
          reconnectAfterMs: () => 50,
          authToken,
        });
        socket.onError(() => resolve("refused"));
        socket.connect();

        window.room = socket.channel(topic);
        window.news = new Promise((resolve) => room.on("new_msg", resolve));
        window.answer = (event, payload) =>
          new Promise((done) => {
            const push = room.push(event, payload);
            for (const status of ["ok", "error", "timeout"]) push.receive(status, (reply) => done([status, reply]));
          });
        const joining = room.join();
        for (const status of ["ok", "error", "timeout"]) joining.receive(status, () => resolve(status));
      });
    return page.evaluate(connect, { url: `ws://${server.host}/socket`, topic, transport, user, authToken });
  }
});

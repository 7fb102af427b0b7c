// Pages that go away: the end of a session in a real browser.
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { clients, unique } from "../support/client.js";
import { launch, servePage } from "../support/browser.js";
import { follow } from "../support/lobby.js";
import { example, startServer } from "../support/server.js";
import { test } from "../support/test.js";
import { until } from "../support/until.js";

const RELOADS = 5;

/** Less than the grace of a client that only closes its connection, after which its presence leaves anyway. */
const SOON_MS = 5_000;

describe("pages that go away, in Chromium", () => {
  let server, pages, browser;
  before(async () => {
    [server, pages, browser] = await Promise.all([startServer(example("reference")), servePage(), launch()]);
  });
  after(() => Promise.all([server?.stop(), pages?.stop(), browser?.close()]));

  for (const transport of ["WebSocket", "LongPoll"]) {
    test(`a page that reloads ${RELOADS} times is one presence over ${transport}`, { timeout: 60_000 }, async (t) => {
      const { page, user, metas } = await present(t, transport);
      for (let n = 1; n <= RELOADS; n += 1) {
        await page.reload();
        await enter(page, transport, user);
      }
      const last = `load ${RELOADS}`;
      await until(() => `one presence, and not ${metas()}`, () => metas().join() === last, SOON_MS);
    });

    test(`a page that is closed leaves at once over ${transport}`, { timeout: 60_000 }, async (t) => {
      const { page, metas } = await present(t, transport);
      await page.close();
      await until(() => `nobody, and not ${metas()}`, () => metas().length === 0, SOON_MS);
    });

    test(`a socket that is disconnected leaves at once over ${transport}`, { timeout: 60_000 }, async (t) => {
      const { page, metas } = await present(t, transport);
      await page.evaluate(() => socket.disconnect());
      await until(() => `nobody, and not ${metas()}`, () => metas().length === 0, SOON_MS);
    });
  }

  /** Opens a page that is present in a lobby, which another client watches. */
  async function present(t, transport) {
    const user = { id: unique("user"), topic: unique("lobby:"), loads: 0 };
    const [client] = await clients("phoenix-1.8", server);
    const options = client.options();
    const url = `ws://${server.host}/socket`;
    const watcher = follow(client.phoenix, url, { topic: user.topic, name: "watching", user: "watcher", options });
    t.after(() => watcher.disconnect());
    assert.equal(await watcher.joined(), "ok");
    const page = await browser.newPage();
    t.after(() => page.close());
    await page.goto(`http://127.0.0.1:${pages.port}/`);
    await enter(page, transport, user);
    /** The names under which the page's user is present. */
    const metas = () => Object.fromEntries(watcher.list())[user.id]?.map(({ name }) => name) ?? [];
    await until("it is present", () => metas().length === 1);
    return { page, user, metas };
  }

  /** Joins the lobby with a new socket of the page. */
  async function enter(page, transport, user) {
    const join = async ({ url, transport, id, topic, name }) => {
      const { keepSession } = await import("/client/index.js");
      const options = { params: { user_id: id }, transport: transport === "LongPoll" ? Phoenix.LongPoll : WebSocket };
      globalThis.socket = new Phoenix.Socket(url, keepSession(options));
      const room = socket.channel(topic, { name });
      socket.connect();
      return new Promise((done) => {
        const joining = room.join();
        for (const status of ["ok", "error", "timeout"]) joining.receive(status, () => done(status));
      });
    };
    const name = `load ${user.loads}`;
    const { id, topic } = user;
    user.loads += 1;
    assert.equal(await page.evaluate(join, { url: `ws://${server.host}/socket`, transport, id, topic, name }), "ok");
  }
});

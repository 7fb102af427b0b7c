// The newest official `Presence` in a real browser, compared with the server's own list.
import { after, before, describe } from "node:test";
import { launch, servePage } from "../support/browser.js";
import { unique } from "../support/client.js";
import { WALK_ENV, follow, walk } from "../support/lobby.js";
import { example, startServer } from "../support/server.js";
import { test } from "../support/test.js";

describe("presence in Chromium", () => {
  let server, pages, browser;
  before(async () => {
    [server, pages, browser] = await Promise.all([
      startServer(example("reference"), { env: WALK_ENV }),
      servePage(),
      launch(),
    ]);
  });
  after(() => Promise.all([server?.stop(), pages?.stop(), browser?.close()]));

  for (const transport of ["WebSocket", "LongPoll"]) {
    for (const keep of [false, true]) {
      const whose = keep ? "with resumable sessions" : "without sessions";
      test(`lists agree after a random walk ${whose} over ${transport}`, { timeout: 40_000 }, async (t) => {
        const page = await browser.newPage();
        t.after(() => page.close());
        await page.goto(`http://127.0.0.1:${pages.port}/`);
        await page.addScriptTag({ content: `window.people = []; ${follow}` });
        const arrive = (proxy, who) => enter(page, transport, proxy, who);
        await walk(t, { server, topic: unique("lobby:"), keep, enter: arrive });
      });
    }
  }

  /** Follows a lobby with a client that runs in the page. */
  async function enter(page, transport, { host }, who) {
    const arrive = ({ url, transport, who }) => {
      const options = { transport: transport === "LongPoll" ? Phoenix.LongPoll : window.WebSocket };
      return people.push(follow(Phoenix, url, { ...who, options })) - 1;
    };
    const index = await page.evaluate(arrive, { url: `ws://${host}/socket`, transport, who });
    const names = await page.evaluate((index) => Object.keys(people[index]), index);
    const call = (name) => (argument) =>
      page.evaluate(([index, name, argument]) => people[index][name](argument), [index, name, argument]);
    return Object.fromEntries(names.map((name) => [name, call(name)]));
  }
});

// The list of people in a room of the chat example. `replaced` names files of the page to replace: see `enterChat`.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { launch } from "../support/browser.js";
import { enterChat } from "../support/chat.js";
import { unique } from "../support/client.js";
import { example, startServer } from "../support/server.js";
import { AT_A_TIME, test } from "../support/test.js";

export function people(implementation, replaced) {
  describe(`the people in the chat, with Presence of ${implementation}`, { concurrency: AT_A_TIME }, () => {
    let server, browser, folder;
    before(async () => {
      folder = await mkdtemp(join(tmpdir(), "chat-"));
      const env = { CHAT_DB: join(folder, "chat.sqlite") };
      [server, browser] = await Promise.all([startServer(example("chat"), { env }), launch()]);
    });
    after(async () => {
      await Promise.all([server?.stop(), browser?.close()]);
      await rm(folder, { recursive: true });
    });

    test("two tabs of one person count as one", async (t) => {
      const [ann, bob] = await both(t);
      const again = await enter(t, { room: ann.room, name: ann.name, transport: "longpoll" });
      await ann.sees(`${ann.name} (you, 2 tabs)`, bob.name);
      await bob.sees(`${ann.name} (2 tabs)`, `${bob.name} (you)`);
      await leave(again);
      await bob.sees(ann.name, `${bob.name} (you)`);
    });

    test("another user sees that someone is typing, and when they pause", async (t) => {
      const [ann, bob] = await both(t);
      await ann.page.getByTestId("message-input").pressSequentially("I thi");
      await bob.sees(`${ann.name}, typing`, `${bob.name} (you)`);
      await bob.sees(ann.name, `${bob.name} (you)`);
    });

    test("a user whose window loses the focus for a while is away until it has it again", async (t) => {
      const [ann, bob] = await both(t);
      await ann.setAway(true);
      await ann.page.clock.fastForward(11_000);
      await bob.sees(`${ann.name}, away`, `${bob.name} (you)`);
      await ann.setAway(false);
      await bob.sees(ann.name, `${bob.name} (you)`);
    });

    test("a user who is away in one tab but not in another is here", async (t) => {
      const [ann, bob] = await both(t);
      const again = await enter(t, { room: ann.room, name: ann.name, transport: "websocket" });
      await ann.setAway(true);
      await ann.page.clock.fastForward(11_000);
      await ann.says("said after that");
      await bob.message("said after that").waitFor();
      await bob.sees(`${ann.name} (2 tabs)`, `${bob.name} (you)`);
      await leave(again);
      await bob.sees(`${ann.name}, away`, `${bob.name} (you)`);
    });

    for (const transport of ["websocket", "longpoll"]) {
      test(`the others do not notice a cut connection over ${transport}`, async (t) => {
        const room = unique("room-");
        const ann = await enter(t, { room, transport });
        const bob = await enter(t, { room, transport: "websocket" });
        await Promise.all([ann.sees(`${ann.name} (you)`, bob.name), bob.sees(ann.name, `${bob.name} (you)`)]);
        await Promise.all([ann, bob].map(watch));

        await ann.stopsTheClock();
        await ann.tries("cut");
        await ann.page.getByTestId("status").filter({ hasText: "reconnecting" }).waitFor();
        const cat = await enter(t, { room, transport }); // ann learns of it when she returns
        await cat.sees(ann.name, bob.name, `${cat.name} (you)`);
        await ann.page.clock.resume();
        await ann.session("same session").waitFor();
        await ann.sees(`${ann.name} (you)`, bob.name, cat.name);
        for (const tab of [ann, bob]) {
          assert.deepEqual(await tab.page.evaluate(() => window.changes), [`came: ${cat.name}`]);
        }
      });

      test(`a user who leaves, or closes the tab, over ${transport} is gone`, async (t) => {
        const room = unique("room-");
        const ann = await enter(t, { room, transport: "websocket" });
        const bob = await enter(t, { room, transport });
        await ann.sees(`${ann.name} (you)`, bob.name);
        await leave(bob);
        await ann.sees(`${ann.name} (you)`);

        await bob.page.getByTestId("join").click();
        await ann.sees(`${ann.name} (you)`, bob.name);
        await bob.page.goto("about:blank");
        await ann.sees(`${ann.name} (you)`);
      });
    }

    test("a user who closes the tab while a request over longpoll has no answer is gone", async (t) => {
      const room = unique("room-");
      const ann = await enter(t, { room, transport: "websocket" });
      const bob = await enter(t, { room, transport: "longpoll" });
      await ann.sees(`${ann.name} (you)`, bob.name);
      await bob.page.evaluate(() => {
        const { fetch } = window;
        const isTyping = (options) => options?.body?.includes('"doing"');
        window.fetch = (url, options) => (isTyping(options) ? new Promise(() => {}) : fetch(url, options));
      });
      await bob.page.getByTestId("message-input").pressSequentially("I");
      await bob.page.goto("about:blank");
      await ann.sees(`${ann.name} (you)`);
    });

    test("a user who resumes a session under another name is listed under the new name", async (t) => {
      const room = unique("room-");
      const ann = await enter(t, { room, transport: "websocket" });
      await ann.page.evaluate(async (topic) => {
        const { Socket } = await import("/client/socket.js");
        const socket = new Socket("/socket", { secret: "the secret of Bob" });
        const names = ["Bob", "Robert"];
        const channel = socket.channel(topic, () => ({ name: names.shift(), last_seen_id: 0 }));
        const joined = () => new Promise((resolve) => (channel.onjoin = resolve));
        channel.join();
        socket.connect();
        await joined();
        socket.cut(0);
        window.answer = joined();
      }, `room:${room}`);
      assert.equal((await ann.page.evaluate(() => answer)).resumed, true);
      await ann.sees(`${ann.name} (you)`, "Robert");
    });

    for (const width of [340, 1280]) {
      test(`nothing else moves when people come and go on a page ${width} px wide`, async (t) => {
        const [room, viewport] = [unique("room-"), { width, height: 740 }];
        const ann = await enter(t, { room, viewport, transport: "websocket" });
        await ann.sees(`${ann.name} (you)`);
        const boxes = () => Promise.all(["#people", "#scroll", "#composer"].map((id) => ann.page.locator(id).boundingBox()));
        const before = await boxes();
        const others = await Promise.all(["a", "b", "c"].map((n) => enter(t, { room, name: n.repeat(32), transport: "longpoll" })));
        await ann.sees(`${ann.name} (you)`, ...others.map((other) => other.name));
        assert.deepEqual(await boxes(), before);
        assert.ok(await ann.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "page scrolls sideways");
        await Promise.all(others.map(leave));
        await ann.sees(`${ann.name} (you)`);
        assert.deepEqual(await boxes(), before);
      });
    }

    const enter = (t, options) => enterChat(t, { browser, host: server.host, replaced, ...options });

    const leave = (tab) => tab.page.getByRole("button", { name: "Leave" }).click();

    /** Two users in a new room who see each other. */
    async function both(t) {
      const room = unique("room-");
      const [ann, bob] = await Promise.all(["websocket", "longpoll"].map((transport) => enter(t, { room, transport })));
      await Promise.all([ann.sees(`${ann.name} (you)`, bob.name), bob.sees(ann.name, `${bob.name} (you)`)]);
      return [ann, bob];
    }

    /** Records in `window.changes` who appears in the row of faces and who disappears from it. */
    function watch(tab) {
      return tab.page.evaluate(() => {
        window.changes = [];
        const names = (what, nodes) => changes.push(...[...nodes].map((node) => `${what}: ${node.querySelector(".name").textContent}`));
        const note = ({ addedNodes, removedNodes }) => [names("came", addedNodes), names("went", removedNodes)];
        new MutationObserver((all) => all.forEach(note)).observe(document.getElementById("faces"), { childList: true });
      });
    }
  });
}

// The chat example as its users see it: two tabs, one over WebSocket and one over long poll.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { launch } from "../support/browser.js";
import { enterChat } from "../support/chat.js";
import { unique } from "../support/client.js";
import { startFaultProxy } from "../support/fault_proxy.js";
import { example, startServer } from "../support/server.js";
import { test } from "../support/test.js";

const PAGE_OF_HISTORY = 50;

describe("the chat page in Chromium", () => {
  let server, browser, folder;
  const start = (addr) => startServer(example("chat"), { addr, env: { CHAT_DB: join(folder, "chat.sqlite") } });
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "chat-"));
    [server, browser] = await Promise.all([start(), launch()]);
  });
  after(async () => {
    await Promise.all([server?.stop(), browser?.close()]);
    await rm(folder, { recursive: true });
  });

  test("a tab on WebSocket and a tab on long poll chat with each other", async (t) => {
    const [ann, bob] = await both(t);
    await ann.says("hello over a socket");
    await bob.says("hello over polls");
    for (const tab of [ann, bob]) {
      await tab.message("hello over a socket").waitFor();
      await tab.message("hello over polls").waitFor();
    }
    assert.deepEqual([await ann.status(), await bob.status()], ["WebSocket · connected", "Long poll · connected"]);
  });

  test("the page shows the round trip", async (t) => {
    for (const tab of await both(t)) await tab.page.getByTestId("rtt").filter({ hasText: /^\d+(\.\d)? ms$/ }).waitFor();
  });

  test("each tab sees the other typing, and stopping", async (t) => {
    const [ann, bob] = await both(t);
    for (const [who, whom] of [[ann, bob], [bob, ann]]) {
      await who.page.getByTestId("message-input").pressSequentially("I thi");
      await whom.typing(`${who.name} is typing`).waitFor();
      await who.says("I think so");
      await whom.typing("").waitFor({ state: "attached" });
    }
  });

  test("a reaction is seen by both and can be taken back", async (t) => {
    const [ann, bob] = await both(t);
    await ann.says("who is for it?");
    await bob.message("who is for it?").hover();
    await bob.message("who is for it?").getByTestId("react-👍").click();
    for (const tab of [ann, bob]) await tab.message("who is for it?").getByTestId("reaction-👍").waitFor();

    await bob.message("who is for it?").getByTestId("reaction-👍").click();
    for (const tab of [ann, bob]) {
      await tab.message("who is for it?").getByTestId("reaction-👍").waitFor({ state: "detached" });
    }
  });

  test("a user can delete their own messages for everyone, but nobody else's", async (t) => {
    const [ann, bob] = await both(t);
    await ann.says("no, that was wrong");
    await bob.message("no, that was wrong").waitFor();
    assert.equal(await bob.message("no, that was wrong").getByTestId("delete").count(), 0);

    await ann.message("no, that was wrong").hover();
    await ann.message("no, that was wrong").getByTestId("delete").click();
    for (const tab of [ann, bob]) await tab.message("no, that was wrong").waitFor({ state: "detached" });
  });

  test("older messages are loaded on request", async (t) => {
    const [ann] = await both(t);
    const texts = Array.from({ length: PAGE_OF_HISTORY + 5 }, (_, n) => `number ${n}.`);
    await ann.page.evaluate((texts) => {
      for (const text of texts) {
        document.querySelector("[data-testid=message-input]").value = text;
        document.querySelector("[data-testid=send]").click();
      }
    }, texts);
    await ann.message(texts.at(-1)).and(ann.page.locator("[data-id]")).waitFor();

    const cat = await enter(t, { room: ann.room, transport: "longpoll" });
    await cat.message(texts.at(-1)).waitFor();
    assert.equal(await cat.messages().count(), PAGE_OF_HISTORY);
    await cat.page.getByTestId("older").click();
    await cat.message(texts[0]).waitFor();
    assert.equal(await cat.messages().count(), texts.length);
    assert.equal(await cat.page.getByTestId("older").isVisible(), false);
  });

  test("a tab misses nothing when it changes its transport", async (t) => {
    const [ann, bob] = await both(t);
    await bob.says("before");
    await ann.message("before").waitFor();
    await ann.page.getByTestId("transport-lp").click();
    await bob.says("meanwhile");
    await ann.connectedOver("Long poll");
    await ann.message("meanwhile").waitFor();

    await ann.page.getByTestId("transport-ws").click();
    await ann.connectedOver("WebSocket");
    await ann.session("same session").waitFor();
    await ann.says("and back");
    await bob.message("and back").waitFor();
    assert.equal(await ann.messages().count(), 3);
  });

  for (const transport of ["websocket", "longpoll"]) {
    test(`a cut connection over ${transport} resumes the same session: nothing lost, nothing twice`, async (t) => {
      const room = unique("room-");
      const ann = await enter(t, { room, transport });
      const bob = await enter(t, { room, transport: "websocket" });
      await bob.says("before");
      await ann.message("before").waitFor();

      await ann.stopsTheClock(); // keeps her away until everything is written
      await ann.tries("cut");
      await ann.page.getByTestId("status").filter({ hasText: "reconnecting" }).waitFor();
      for (const text of ["one", "two", "three"]) {
        await bob.says(text);
        await bob.confirmed(text).waitFor();
      }
      await ann.says("from afar");
      assert.equal(await ann.messages().count(), 2, "she receives nothing");
      await ann.page.clock.resume();

      await ann.session("same session, 3 messages replayed").waitFor();
      for (const tab of [ann, bob]) {
        await tab.confirmed("from afar").waitFor();
        assert.deepEqual(await tab.texts(), ["before", "one", "two", "three", "from afar"]);
      }
    });
  }

  for (const transport of ["websocket", "longpoll"]) {
    test(`what is written over ${transport} while the line keeps dying arrives once`, { timeout: 60_000 }, async (t) => {
      const proxy = await startFaultProxy(server);
      t.after(proxy.stop);
      t.diagnostic(`FAULT_SEED=${proxy.seed}`);
      const room = unique("room-");
      const ann = await enterChat(t, { browser, host: proxy.host, room, transport });
      const bob = await enter(t, { room, transport: "websocket" });
      const texts = Array.from({ length: 15 }, (_, n) => `line ${n}`);
      await proxy.killEvery({ ms: 300, jitter: 200, times: 4 });
      for (const text of texts) await ann.says(text);
      for (const text of texts) await ann.confirmed(text).waitFor({ timeout: 30_000 });
      await ann.says("the end");
      for (const tab of [ann, bob]) {
        await tab.confirmed("the end").waitFor({ timeout: 30_000 });
        assert.deepEqual(await tab.texts(), [...texts, "the end"]);
      }
      assert.equal(await ann.page.locator(".unsent").count(), 0);
    });
  }

  test("the session continues over long poll while WebSocket is blocked, and returns afterwards", async (t) => {
    const room = unique("room-");
    const [ann, bob] = [await enter(t, { room, transport: "websocket" }), await enter(t, { room, transport: "websocket" })];
    await ann.stopsTheClock();
    await ann.tries("block-ws");
    await bob.says("while she looks for a way");
    await bob.confirmed("while she looks for a way").waitFor();
    await ann.page.clock.resume();
    await ann.session("same session, 1 message replayed").waitFor();
    await ann.connectedOver("Long poll");
    await bob.says("by long poll");
    await ann.message("by long poll").waitFor();

    await ann.tries("block-ws");
    await ann.connectedOver("WebSocket");
    await ann.session("same session, nothing was missed").waitFor();
    await ann.says("and back");
    for (const tab of [ann, bob]) {
      await tab.confirmed("and back").waitFor();
      assert.deepEqual(await tab.texts(), ["while she looks for a way", "by long poll", "and back"]);
    }
  });

  test("a user who leaves and re-enters at once sees the history", async (t) => {
    const [ann] = await both(t);
    await ann.says("still there?");
    await ann.confirmed("still there?").waitFor();
    for (let times = 0; times < 3; times += 1) {
      await ann.page.getByRole("button", { name: "Leave" }).click();
      await ann.page.getByTestId("join").click();
      await ann.confirmed("still there?").waitFor();
    }
  });

  test("a reload keeps the history and the authors of its messages", async (t) => {
    const [ann, bob] = await both(t);
    await ann.says("mine");
    await bob.says("his");
    await ann.message("his").waitFor();
    await ann.page.reload();
    await ann.page.getByTestId("join").click();
    await ann.message("his").waitFor();
    assert.equal(await ann.message("mine").getByTestId("delete").count(), 1);
    assert.equal(await ann.message("his").getByTestId("delete").count(), 0);
  });

  test("a server restart loses nothing, not even messages written while it was down", async (t) => {
    const [ann, bob] = await both(t);
    await ann.says("before the restart");
    await bob.message("before the restart").waitFor();

    await server.stop();
    await bob.says("into the void");
    server = await start(server.host);
    // Whoever is back second may have missed what the first one has sent again.
    await Promise.all([ann, bob].map((tab) => tab.session(/^same session, (nothing was missed|1 message)/).first().waitFor()));

    await ann.message("into the void").waitFor();
    await ann.says("after the restart");
    await bob.message("after the restart").waitFor();
    const cat = await enter(t, { room: ann.room, transport: "websocket" });
    for (const tab of [ann, bob, cat]) {
      await tab.message("after the restart").waitFor();
      assert.deepEqual(await tab.texts(), [
        "before the restart",
        "into the void",
        "after the restart",
      ]);
    }
  });

  test("a server that is killed while two tabs write goes on where it was", async (t) => {
    const tabs = await both(t);
    const [ann, bob] = tabs;
    const written = [];
    for (let round = 1; round <= 6; round += 1) {
      for (const [n, tab] of tabs.entries()) {
        written.push(`${n} in round ${round}`);
        await tab.says(written.at(-1));
      }
      if (round % 2 === 0) {
        await server.kill();
        server = await start(server.host);
      }
    }
    // Back in the same session, without a snapshot of the room.
    for (const tab of tabs) await tab.session(/^same session, (nothing was|1 message|\d+ messages)/).first().waitFor();
    for (const tab of tabs) for (const text of written) await tab.confirmed(text).waitFor();
    const texts = await ann.texts();
    assert.deepEqual(texts.toSorted(), written.toSorted());
    assert.deepEqual(await bob.texts(), texts);
  });

  test("messages are never interpreted as HTML", async (t) => {
    const [ann, bob] = await both(t);
    const text = "<img src=x onerror='document.title = 1'>";
    await ann.says(text);
    await bob.message(text).waitFor();
    assert.equal(await bob.page.locator("#log img").count(), 0);
  });

  for (const [device, width, height] of [["a phone", 360, 740], ["a desktop", 1280, 800]]) {
    test(`the page fits ${device}`, async (t) => {
      const tab = await enter(t, { room: unique("room-"), transport: "websocket", viewport: { width, height } });
      await tab.says("a word ".repeat(40) + "x".repeat(120));
      await tab.messages().first().waitFor();
      assert.ok(await tab.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "page scrolls sideways");
      const box = await tab.page.getByTestId("send").boundingBox();
      assert.ok(box.x >= 0 && box.x + box.width <= width && box.y + box.height <= height, JSON.stringify(box));
    });
  }

  /** Two users in a new room, over different transports. */
  function both(t) {
    const room = unique("room-");
    return Promise.all([enter(t, { room, transport: "websocket" }), enter(t, { room, transport: "longpoll" })]);
  }

  const enter = (t, options) => enterChat(t, { browser, host: server.host, ...options });
});

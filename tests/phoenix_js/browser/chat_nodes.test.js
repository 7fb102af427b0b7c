// The chat example as two servers over one engine: people on different servers are in one room.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { missing, startEngine } from "../cluster/engines.js";
import { launch } from "../support/browser.js";
import { enterChat } from "../support/chat.js";
import { unique } from "../support/client.js";
import { example, startServer } from "../support/server.js";
import { test } from "../support/test.js";

/** After which the people of a server that died are gone, and what a busy machine is granted beyond. */
const GONE_MS = 6000 + 2000;

for (const name of ["redis", "nats"]) {
  describe(`the chat on two servers over ${name}`, { skip: missing(name) }, () => {
    let engine, browser, folder;
    before(async () => {
      folder = await mkdtemp(join(tmpdir(), "chat-"));
      [engine, browser] = await Promise.all([startEngine(name), launch()]);
    });
    after(async () => {
      await Promise.all([engine?.stop(), browser?.close()]);
      await rm(folder, { recursive: true });
    });

    test("people on both talk to each other, and see each other until one server dies", { timeout: 40_000 }, async (t) => {
      const env = { ENGINE: engine.url(), CHAT_DB: join(folder, "chat.sqlite") };
      const servers = await Promise.all([0, 1].map(() => startServer(example("chat"), { env })));
      t.after(() => Promise.all(servers.map((server) => server.kill())));
      const room = unique("room-");
      const enter = (server, transport) => enterChat(t, { browser, host: server.host, room, transport });
      const ann = await enter(servers[0], "websocket");
      const bob = await enter(servers[1], "longpoll");
      const cat = await enter(servers[1], "websocket");
      const tabs = [ann, bob, cat];
      const names = (me) => tabs.map((tab) => (tab === me ? `${tab.name} (you)` : tab.name));
      await Promise.all(tabs.map((tab) => tab.sees(...names(tab))));

      for (const tab of tabs) {
        await tab.says(`said by ${tab.name}`);
        await Promise.all(tabs.map((other) => other.message(`said by ${tab.name}`).waitFor()));
      }
      for (const tab of tabs) assert.equal(await tab.messages().count(), tabs.length, "nothing comes twice");

      const died = Date.now();
      await servers[1].kill();
      await ann.sees(`${ann.name} (you)`);
      assert.ok(Date.now() - died < GONE_MS, `${Date.now() - died} ms`);
    });
  });
}

// The dashboard of the chat example, as its operator sees it.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe } from "node:test";
import { launch } from "../support/browser.js";
import { enterChat } from "../support/chat.js";
import { unique } from "../support/client.js";
import { example, startServer } from "../support/server.js";
import { test } from "../support/test.js";

const WITHIN_MS = 10_000;

describe("the dashboard in Chromium", () => {
  let server, browser, folder, ann;
  const closers = [];
  const start = (env = {}) => startServer(example("chat"), { env: { CHAT_DB: join(folder, `${unique("db")}.sqlite`), ...env } });
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "dashboard-"));
    [server, browser] = await Promise.all([start(), launch()]);
    const enter = (transport) => {
      const lasting = { after: (close) => closers.push(close) };
      return enterChat(lasting, { browser, host: server.host, room: unique("room-"), transport });
    };
    [ann] = await Promise.all([enter("websocket"), enter("longpoll")]);
  });
  after(async () => {
    await Promise.all(closers.map((close) => close()));
    await Promise.all([server?.stop(), browser?.close()]);
    await rm(folder, { recursive: true });
  });

  /** Opens a view. The test fails if the page logs an error, or breaks its content security policy. */
  async function open(t, hash = "#/", { host = server.host, ...options } = {}) {
    const context = await browser.newContext({ viewport: { width: 1100, height: 800 }, ...options });
    t.after(() => context.close());
    const page = await context.newPage();
    page.setDefaultTimeout(WITHIN_MS);
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
    t.after(() => assert.deepEqual(errors, []));
    await page.goto(`http://${host}/dashboard${hash}`);
    await page.getByTestId("status").filter({ hasText: "live" }).waitFor();
    return page;
  }

  test("the overview shows the sessions and the messages of the chat", async (t) => {
    const page = await open(t);
    await page.getByTestId("sessions").filter({ hasText: /^\d+$/ }).waitFor();
    assert.ok(Number(await page.getByTestId("sessions").innerText()) >= 2);
    await page.getByRole("img", { name: /WebSocket \d+ %, Long poll \d+ %/ }).waitFor();
    await page.getByRole("row", { name: "room:*" }).waitFor();
    await ann.says("something that is counted");
    await page.getByTestId("received").filter({ hasText: /[1-9]/ }).waitFor();
  });

  test("a plot is read with the keyboard", async (t) => {
    const page = await open(t);
    const plot = page.getByRole("img", { name: "Sessions", exact: true });
    await page.locator("figure").filter({ has: plot }).locator("path.line").first().waitFor({ state: "attached" });
    await plot.focus();
    await page.keyboard.press("ArrowLeft");
    const time = page.locator("figure").filter({ has: plot }).locator(".time");
    await time.filter({ hasText: /^\d\d:\d\d:\d\d$/ }).waitFor();
    await page.keyboard.press("Escape");
    await time.filter({ hasText: /^$/ }).waitFor({ state: "attached" });
  });

  test("a session is found by its socket id, and disconnected", async (t) => {
    const page = await open(t, "#/sessions");
    const row = page.getByRole("row").filter({ hasText: "WebSocket" });
    const id = await row.getByRole("rowheader").innerText();
    await page.getByTestId("search").fill(id.toUpperCase());
    await page.getByTestId("found").filter({ hasText: /^1 found in/ }).waitFor();
    await page.getByRole("button", { name: `Disconnect ${id}` }).click();
    await page.getByTestId("confirm").click();
    await page.getByText(`Disconnected ${id}`).waitFor();
    await ann.session("same session").waitFor(); // the page of the chat comes back by itself, and has missed nothing
  });

  test("the broadcasts of a topic are seen live, and nothing in them is HTML", async (t) => {
    const page = await open(t, "#/topics");
    await page.getByTestId("search").fill(ann.room);
    await page.getByRole("link", { name: `room:${ann.room}` }).click();
    await page.getByTestId("keys").getByRole("listitem").first().waitFor();
    await ann.says("<b>bold</b>");
    const message = page.getByTestId("traffic").getByRole("listitem").filter({ hasText: "<b>bold</b>" });
    await message.first().waitFor();
    assert.equal(await page.getByTestId("traffic").getByText("bold", { exact: true }).count(), 0);
    await page.goBack();
    await page.getByRole("heading", { name: "Topics" }).waitFor();
  });

  test("every view fits a phone, in light and dark", async (t) => {
    const page = await open(t, "#/", { viewport: { width: 390, height: 800 } });
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      for (const view of ["Sessions", "Topics", "Overview"]) {
        await page.getByRole("link", { name: view, exact: true }).click();
        await page.locator(`nav [aria-current]`).filter({ hasText: view }).waitFor();
        const excess = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(excess <= 0, `${view} is ${excess} px too wide`);
      }
    }
  });

  test("with a password it asks for that", async (t) => {
    const guarded = await start({ DASHBOARD_PASSWORD: "open sesame" });
    t.after(() => guarded.stop());
    const response = await fetch(`http://${guarded.host}/dashboard`);
    assert.equal(response.status, 401);
    assert.ok(!(await response.text()).includes("<"));
    const httpCredentials = { username: "anyone", password: "open sesame" };
    const page = await open(t, "#/", { host: guarded.host, httpCredentials });
    await page.getByTestId("sessions").filter({ hasText: "0" }).waitFor();
  });
});

// Drives the page of the chat example as a user would.
import { unique } from "./client.js";

const WITHIN_MS = 10_000;

/**
 * Opens the page as a new user and joins a room. Every user has a separate browser context, so that they share nothing
 * but the server. `replaced` maps files of the page to scripts that are served in their place.
 */
export async function enterChat(t, { browser, host, room, transport, name = unique("visitor "), viewport, replaced = {} }) {
  const context = await browser.newContext({ viewport: viewport ?? { width: 900, height: 700 } });
  t.after(() => context.close());
  const page = await context.newPage();
  page.setDefaultTimeout(WITHIN_MS);
  for (const [file, path] of Object.entries(replaced)) {
    await page.route(`**/${file}`, (route) => route.fulfill({ path, contentType: "text/javascript" }));
  }
  await page.clock.install(); // before any timer is set; it runs normally until it is paused
  await page.goto(`http://${host}/`);
  await page.getByTestId(transport === "websocket" ? "transport-ws" : "transport-lp").click();
  await page.getByTestId("name").fill(name);
  await page.getByTestId("room").fill(room);
  await page.getByTestId("join").click();

  const tab = {
    name,
    room,
    page,
    status: () => page.getByTestId("status").innerText(),
    messages: () => page.getByTestId("message"),
    texts: () => page.getByTestId("message").locator(".bubble").allInnerTexts(),
    session: (text) => page.getByTestId("session").filter({ hasText: text }),
    message: (text) => page.getByTestId("message").filter({ has: page.getByText(text, { exact: true }) }),
    typing: (text) => page.getByTestId("typing").filter({ hasText: text === "" ? /^$/ : text }),
    connectedOver: (name) => page.getByTestId("status").filter({ hasText: `${name} · connected` }).waitFor(),
    /** A message confirmed by the server, including the user's own. */
    confirmed: (text) => tab.message(text).and(page.locator("[data-id]")),
    /** Waits for exactly these people, with these descriptions, in any order. */
    async sees(...people) {
      await page.getByTestId("count").filter({ hasText: `${people.length} here` }).waitFor();
      for (const person of people) await page.getByTestId("person").and(page.getByTitle(person, { exact: true })).waitFor();
    },
    async tries(button) {
      await page.getByTestId("try").locator("summary").click();
      await page.getByTestId(button).click();
    },
    stopsTheClock: () => page.clock.pauseAt(Date.now() + 1000),
    async says(text) {
      await page.getByTestId("message-input").fill(text);
      await page.getByTestId("send").click();
    },
    /** Moves the focus to another window, or back. */
    setAway(away) {
      return page.evaluate((away) => {
        document.hasFocus = () => !away;
        dispatchEvent(new Event(away ? "blur" : "focus"));
      }, away);
    },
  };
  await tab.connectedOver(transport === "websocket" ? "WebSocket" : "Long poll");
  await page.getByTestId("message-input").waitFor();
  return tab;
}

// The showcase as its users see it: two devices on one page. What they do to the network, the page offers.
import assert from "node:assert/strict";
import { after, before, describe } from "node:test";
import { launch } from "../support/browser.js";
import { example, startServer } from "../support/server.js";
import { AT_A_TIME, test } from "../support/test.js";

// The parts of the page share nothing. What is in a part is seen by all of its tests, which run one after the other.
describe("the showcase in Chromium", { concurrency: AT_A_TIME }, () => {
  let server, browser;
  before(async () => {
    [server, browser] = await Promise.all([startServer(example("showcase")), launch()]);
  });
  after(() => Promise.all([server?.stop(), browser?.close()]));

  describe("live updates", { concurrency: 1 }, () => {
    test("a device on a slow network skips values, and one on a good network does not", async (t) => {
      const { devices: [good, slow] } = await open(t, "live");
      await slow.part("skipped").filter({ hasText: /shown, [1-9]\d* skipped; [\d.]+ s behind/ }).waitFor();
      assert.equal(await slow.part("price").count(), await good.part("price").count());
      assert.equal(await good.part("game").count(), 2);
    });

    test("live updates go on after a cut and while WebSocket is blocked", async (t) => {
      const { page, devices: [device] } = await open(t, "live");
      const goesOn = async () => {
        const step = await device.part("skipped").getAttribute("data-step");
        await device.part("skipped").and(page.locator(`:not([data-step="${step}"])`)).waitFor();
      };
      await device.part("price").first().waitFor();
      await device.tries("cut");
      await goesOn();
      await device.tries("block-ws");
      await device.shows("Long poll · connected");
      await goesOn();
    });
  });

  describe("notifications", { concurrency: 1 }, () => {
    test("what notifies a person reaches all devices, also one that was offline, and they agree on what is unread", async (t) => {
      const { page, devices } = await open(t, "notifications");
      const [laptop, phone] = devices;
      const unread = (n) => Promise.all(devices.map((device) => device.part("unread").filter({ hasText: new RegExp(`^${n}$`) }).waitFor()));
      await unread(0);
      await page.getByTestId("order").click();
      await unread(1);
      await phone.tries("offline");
      await page.getByTestId("report").click();
      await laptop.part("notification").filter({ hasText: "Backup finished" }).waitFor();
      await phone.tries("offline");
      await unread(2);
      await phone.part("read-all").click();
      await unread(0);

      await laptop.part("mute-orders").uncheck();
      await phone.part("mute-orders").and(page.locator(":not(:checked)")).waitFor();
      await page.getByTestId("order").click();
      await page.getByTestId("report").click();
      await unread(1);
      assert.equal(await phone.part("notification").count(), 3);
    });

    test("nobody reads the notifications of another person", async (t) => {
      const { page, devices: [laptop] } = await open(t, "notifications");
      await laptop.shows("connected");
      await page.getByTestId("spy").click();
      await laptop.part("note").filter({ hasText: "Bob was refused: not yours" }).waitFor();
    });
  });

  describe("the board", { concurrency: 1 }, () => {
    test("changes that are made offline arrive once, and one of both devices is a conflict that its user decides", { timeout: 60_000 }, async (t) => {
      const { devices: [laptop, phone] } = await open(t, "board");
      await phone.task("Book the train").waitFor();
      await phone.tries("offline");
      await phone.adds("Written offline");
      await phone.renames("Book the train", "Take the night train");
      await phone.part("waiting").filter({ hasText: "2 changes wait" }).waitFor();
      await laptop.renames("Book the train", "Take the ferry");
      await laptop.part("waiting").filter({ hasText: "saved" }).waitFor();

      await phone.tries("offline");
      await laptop.task("Written offline").waitFor();
      await phone.part("keep-both").click();
      for (const device of [laptop, phone]) {
        for (const text of ["Written offline", "Take the ferry", "Take the night train"]) await device.task(text).waitFor();
        assert.equal(await device.part("task").count(), 5);
      }
    });

    test("the last writer wins a conflict, if its user says so", async (t) => {
      const { devices: [laptop, phone] } = await open(t, "board");
      await phone.task("Call the bank").waitFor();
      await phone.tries("offline");
      await phone.renames("Call the bank", "Write to the bank");
      await laptop.renames("Call the bank", "Visit the bank");
      await laptop.part("waiting").filter({ hasText: "saved" }).waitFor();
      await phone.tries("offline");
      await phone.part("keep-mine").click();
      for (const device of [laptop, phone]) await device.task("Write to the bank").waitFor();
    });

    test("a device that returns without a session gets what it has missed by the history", async (t) => {
      const { devices: [laptop, phone] } = await open(t, "board");
      await laptop.adds("Before");
      await phone.task("Before").waitFor();
      await phone.tries("offline");
      await phone.tries("forget");
      await laptop.adds("Missed");
      await laptop.part("waiting").filter({ hasText: "saved" }).waitFor();
      await phone.tries("offline");
      await phone.part("note").filter({ hasText: "caught up from the history" }).waitFor();
      await phone.task("Missed").waitFor();
    });
  });

  describe("the document", { concurrency: 1 }, () => {
    test("in the built editor, two people who write at the same time, also offline, end with the same text", { timeout: 60_000 }, async (t) => {
      const { page, devices: [ada, bob] } = await open(t, "document");
      for (const device of [ada, bob]) await device.shows("WebSocket · connected");
      // In one turn, so that neither knows of the other's.
      await page.evaluate(() => {
        for (const [n, area] of document.querySelectorAll('[data-testid="letter"]').entries()) {
          area.value += ["Ada begins. ", "Bob begins. "][n];
          area.dispatchEvent(new Event("input"));
        }
      });
      const agree = () =>
        page.waitForFunction(() => {
          const [one, two] = [...document.querySelectorAll('[data-testid="letter"]')].map(({ value }) => value);
          return one === two && one.includes("Ada begins. ") && one.includes("Bob begins. ");
        });
      await agree();
      await ada.part("caret").waitFor();
      await ada.tries("offline");
      await ada.shows("Offline");
      await ada.writes("Ada was away. ");
      await bob.writes("Bob went on. ");
      assert.ok(!(await bob.part("letter").inputValue()).includes("away"));
      await ada.tries("offline");
      await page.waitForFunction(() =>
        [...document.querySelectorAll('[data-testid="letter"]')].every(({ value }) => value.includes("Ada was away. ") && value.includes("Bob went on. ")),
      );
      await agree();
    });

    test("without the built editor, two people write in textareas and end with the same text", { timeout: 60_000 }, async (t) => {
      const { page, devices: [ada, bob] } = await open(t, "document", { without: "**/letter.js" });
      await page.getByTestId("without-editor").filter({ hasText: "npm run build" }).waitFor();
      for (const device of [ada, bob]) await device.shows("WebSocket · connected");
      const words = ["Ada has a 🦀. ", "Bob has a 🦞. "];
      await page.evaluate((words) => {
        for (const [n, area] of document.querySelectorAll('[data-testid="letter"]').entries()) {
          area.value = words[n] + area.value;
          area.dispatchEvent(new Event("input"));
        }
      }, words);
      const agree = (words) =>
        page.waitForFunction((words) => {
          const [one, two] = [...document.querySelectorAll('[data-testid="letter"]')].map(({ value }) => value);
          return one === two && words.every((it) => one.includes(it));
        }, words);
      await agree(words);
      await bob.part("letter").press("ControlOrMeta+Home");
      await ada.part("caret").and(page.locator('[data-name="Bob"]')).waitFor();
      await ada.tries("offline");
      await ada.shows("Offline");
      await ada.writes("Ada was elsewhere. ");
      await bob.writes("Bob stayed. ");
      assert.ok(!(await bob.part("letter").inputValue()).includes("elsewhere"));
      await ada.tries("offline");
      await agree([...words, "Ada was elsewhere. ", "Bob stayed. "]);
    });
  });

  describe("a server that is killed and has forgotten everything", { concurrency: 1 }, () => {
    let server;
    before(async () => (server = await startServer(example("showcase"))));
    after(() => server?.stop());
    const restart = async () => {
      await server.kill();
      server = await startServer(example("showcase"), { addr: server.host });
    };

    test("notifies on", async (t) => {
      const { page, devices } = await open(t, "notifications", { host: server.host });
      const unread = (n) => Promise.all(devices.map((device) => device.part("unread").filter({ hasText: new RegExp(`^${n}$`) }).waitFor()));
      await unread(0);
      for (const n of [1, 2, 3]) {
        await page.getByTestId("report").click();
        await unread(n);
      }
      await restart();
      await unread(0);
      await page.getByTestId("report").click();
      await unread(1);
    });

    test("gets the changes of a board, and no conflicts that cannot be resolved", async (t) => {
      const { devices: [laptop, phone] } = await open(t, "board", { host: server.host });
      await phone.task("Call the bank").waitFor();
      for (const text of ["Visit the bank", "Write to the bank"]) {
        await laptop.renames(text === "Visit the bank" ? "Call the bank" : "Visit the bank", text);
        await phone.task(text).waitFor();
      }
      await restart();
      for (const device of [laptop, phone]) await device.task("Call the bank").waitFor();
      await laptop.renames("Call the bank", "Forget the bank");
      await phone.task("Forget the bank").waitFor();
      assert.equal(await laptop.part("conflict").filter({ visible: true }).count(), 0);
    });
  });

  describe("the page", { concurrency: 1 }, () => {
    test("a part that is left listens to the document and the window no more", async (t) => {
      // Sockets of the official package, which the editor has, listen as long as their page is open.
      const { page } = await open(t, "live", { without: "**/letter.js" });
      const cdp = await page.context().newCDPSession(page);
      const listeners = async () => {
        const counts = await Promise.all(["document", "window"].map(async (expression) => {
          const { result } = await cdp.send("Runtime.evaluate", { expression });
          return (await cdp.send("DOMDebugger.getEventListeners", { objectId: result.objectId })).listeners.length;
        }));
        return counts.join();
      };
      const visit = async (part) => {
        await page.getByRole("link", { name: part }).click();
        await page.getByTestId("device").nth(1).getByTestId("status").filter({ hasText: "connected" }).waitFor();
      };
      await visit("Shared document");
      await visit("Notifications");
      const before = await listeners();
      for (const part of ["Synchronisation", "Live updates", "Shared document", "Notifications"]) await visit(part);
      assert.equal(await listeners(), before);
    });

    test("the network is changed with the keyboard, and the focus stays there", async (t) => {
      const { page, devices: [device] } = await open(t, "live");
      await device.shows("connected");
      const menu = device.part("try").locator("summary");
      await menu.focus();
      await page.keyboard.press("Enter");
      for (let n = 0; n < 4; n += 1) await page.keyboard.press("Tab"); // over both transports and the cut
      await page.keyboard.press("Enter");
      await device.shows("Offline");
      assert.ok(await menu.evaluate((it) => it === document.activeElement));
      await page.keyboard.press("Enter");
      await page.keyboard.press("Shift+Tab");
      await device.part("offline").waitFor({ state: "hidden" });
    });

    test("the dashboard shows the devices", async (t) => {
      const { page } = await open(t, "live");
      const [dashboard] = await Promise.all([page.waitForEvent("popup"), page.getByRole("link", { name: "Dashboard", exact: true }).click()]);
      await dashboard.getByRole("link", { name: "Sessions", exact: true }).click();
      await dashboard.getByRole("row").filter({ hasText: "person:ada" }).nth(1).waitFor();
    });

    for (const [device, width] of [["a phone", 360], ["a desktop", 1280]]) {
      test(`every part fits ${device}`, async (t) => {
        const { page } = await open(t, "live", { viewport: { width, height: 800 } });
        for (const part of ["Live updates", "Notifications", "Synchronisation", "Shared document"]) {
          await page.getByRole("link", { name: part }).click();
          await page.getByRole("heading", { name: part, level: 2 }).waitFor();
          await page.getByTestId("device").nth(1).waitFor();
          assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${part} scrolls sideways`);
        }
      });
    }
  });

  // `without` is a file that the page does not get.
  async function open(t, part, { without, host = server.host, ...options } = {}) {
    const context = await browser.newContext({ viewport: { width: 1200, height: 900 }, ...options });
    t.after(() => context.close());
    if (without) await context.route(without, (route) => route.abort());
    const page = await context.newPage();
    page.setDefaultTimeout(10_000);
    const errors = [];
    page.on("pageerror", (error) => errors.push(error));
    t.after(() => assert.deepEqual(errors, []));
    await page.goto(`http://${host}/#${part}`);
    return { page, devices: [0, 1].map((n) => device(page.getByTestId("device").nth(n), page)) };
  }

  function device(element, page) {
    const part = (name) => element.getByTestId(name);
    const task = (text) => part("task").filter({ has: page.locator(`[data-text="${text}"]`) });
    return {
      part,
      task,
      shows: (status) => part("status").filter({ hasText: status }).waitFor(),
      async tries(fault) {
        await part("try").locator("summary").click();
        await part(fault).click();
      },
      async adds(text) {
        await part("new-task").fill(text);
        await part("new-task").press("Enter");
      },
      async renames(from, to) {
        const input = task(from).getByTestId("task-text");
        await input.fill(to);
        await input.press("Enter");
      },
      async writes(text) {
        await part("letter").focus();
        await part("letter").pressSequentially(text);
      },
    };
  }
});

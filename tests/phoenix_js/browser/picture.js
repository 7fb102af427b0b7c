// Makes the picture of README from the chat: two people talk while one of them loses WebSocket, and goes on over long poll.
//
// `npm run picture` writes docs/images/fallback.png, an animated PNG.
import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { animate } from "../support/animated_png.js";
import { launch } from "../support/browser.js";
import { enterChat } from "../support/chat.js";
import { example, startServer } from "../support/server.js";

const FILE = fileURLToPath(new URL("../../../docs/images/fallback.png", import.meta.url));
const SIZE = { width: 600, height: 520 };

const folder = await mkdtemp(join(tmpdir(), "picture-"));
const server = await startServer(example("chat"), { env: { CHAT_DB: join(folder, "chat.sqlite") } });
const browser = await launch();
const endings = [];
const t = { after: (ending) => endings.push(ending) };

try {
  const enter = (name, transport) => enterChat(t, { browser, host: server.host, room: "lobby", transport, name, viewport: SIZE });
  const [ada, bob] = [await enter("Ada", "websocket"), await enter("Bob", "websocket")];
  await ada.page.getByTestId("count").filter({ hasText: "2 here" }).waitFor();
  const frames = [];
  const show = async (milliseconds) => {
    const image = await ada.page.screenshot({ animations: "disabled", caret: "hide" });
    frames.push({ image, milliseconds });
  };
  const hears = async (text, milliseconds) => {
    await bob.says(text);
    await ada.confirmed(text).waitFor();
    await show(milliseconds);
  };
  const says = async (text, milliseconds) => {
    await ada.says(text);
    await ada.confirmed(text).waitFor();
    await show(milliseconds);
  };

  await show(1200);
  await says("Morning! I am on the train today.", 1500);
  await hears("Does the network hold?", 1800);
  await ada.page.getByTestId("try").locator("summary").click();
  await show(900);
  await ada.page.getByTestId("block-ws").click();
  await ada.page.keyboard.press("Escape");
  await bob.says("Your line looks bad from here");
  await show(900);
  await ada.confirmed("Your line looks bad from here").waitFor();
  await ada.connectedOver("Long poll");
  await show(2200);
  await says("WebSocket is blocked. I go on over long poll.", 1800);
  await hears("And nothing is missing?", 1500);
  await says("Nothing: it is the same session.", 2600);
  await ada.page.getByTestId("try").locator("summary").click();
  await ada.page.getByTestId("block-ws").click();
  await ada.page.keyboard.press("Escape");
  await ada.connectedOver("WebSocket");
  await hears("You are back on WebSocket.", 3500);

  await mkdir(join(FILE, ".."), { recursive: true });
  const picture = animate(frames);
  await writeFile(FILE, picture);
  console.log(`${FILE}: ${frames.length} frames, ${picture.length} bytes`);
} finally {
  for (const ending of endings) await ending();
  await Promise.all([browser.close(), server.stop()]);
  await rm(folder, { recursive: true });
}

// Launches headless Chromium and serves the pages that it opens.
import { createReadStream, existsSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { chromium } from "playwright-core";

const BROWSERS = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const CLIENT = new URL("../../../client/", import.meta.url);
const PACKAGE = new URL("../node_modules/phoenix-1.8/priv/static/", import.meta.url);

/** Launches Chromium. `hosts` are names that resolve to loopback. */
export function launch({ hosts = [] } = {}) {
  const executablePath = BROWSERS.find((path) => path && existsSync(path));
  if (!executablePath) throw new Error("Chromium is missing: install it, or name it in $CHROMIUM");
  return chromium.launch({
    executablePath,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--no-proxy-server",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      `--host-resolver-rules=${hosts.map((host) => `MAP ${host} 127.0.0.1`).join(", ")}`,
    ],
  });
}

/** Serves a page on loopback with the official package as its global `Phoenix`, and the modules of `client/`. */
export async function servePage() {
  const server = createServer((request, response) => {
    const [, file] = /^\/client\/(\w+\.js)$/.exec(request.url) ?? [];
    const script = request.url === "/phoenix.js" ? new URL("phoenix.js", PACKAGE) : file && new URL(file, CLIENT);
    if (script) {
      response.setHeader("content-type", "text/javascript");
      return createReadStream(script).pipe(response);
    }
    response.setHeader("content-type", "text/html");
    response.end('<!doctype html><title>page</title><script src="/phoenix.js"></script>');
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: server.address().port, stop: () => server.close() };
}

/** Path of the same script, for pages that do not include it. */
export const SCRIPT = new URL("phoenix.js", PACKAGE).pathname;

/** Path of the package as a module. */
export const MODULE = new URL("phoenix.mjs", PACKAGE).pathname;

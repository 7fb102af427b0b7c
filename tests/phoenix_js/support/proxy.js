// A TCP proxy on loopback that misbehaves on demand, as the networks of hotels, trains and offices do.
import { once } from "node:events";
import { connect, createServer } from "node:net";

const REFUSAL = "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
const isUpgrade = (head) => /^upgrade: *websocket/im.test(head.toString("latin1"));

/**
 * Starts the proxy. `upgrades` decides what happens to WebSocket upgrades; all other requests pass.
 * - `pass`: the upgrade passes too.
 * - `refuse`: it is answered 403.
 * - `stall`: it is accepted and never answered.
 * - `mute`: it succeeds, but nothing that the server sends after its response arrives.
 */
export async function startProxy(target, { upgrades = "pass" } = {}) {
  const pairs = new Set();
  const proxy = { upgrades, upgraded: 0 };
  let isClosed = false;

  const listener = createServer((client) => {
    client.on("error", () => client.destroy());
    if (isClosed) return client.destroy();
    client.once("data", (head) => {
      const upgrade = isUpgrade(head);
      if (upgrade && proxy.upgrades === "refuse") return client.end(REFUSAL);
      if (upgrade && proxy.upgrades === "stall") return pairs.add({ client });
      if (upgrade) proxy.upgraded += 1;

      const server = connect(target.port, "127.0.0.1");
      const pair = { client, server, muted: false };
      pairs.add(pair);
      server.write(head);
      client.on("data", (chunk) => server.write(chunk));
      server.on("data", (chunk) => {
        if (!pair.muted) client.write(chunk);
        pair.muted ||= upgrade && proxy.upgrades === "mute";
      });
      client.on("end", () => server.end());
      server.on("end", () => client.end());
      server.on("error", () => client.destroy());
      client.on("close", () => {
        server.destroy();
        pairs.delete(pair);
      });
    });
  });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");

  const { port } = listener.address();
  const cut = () => pairs.forEach(({ client }) => client.destroy());
  return Object.assign(proxy, {
    port,
    host: `127.0.0.1:${port}`,
    /** Cuts every connection. */
    cut,
    /** Accepts no new connection, or does again. */
    close: (closes) => (isClosed = closes),
    /** Drops everything that the server sends on existing connections; new ones are not affected. */
    silence: () => pairs.forEach((pair) => (pair.muted = true)),
    stop() {
      listener.close();
      cut();
    },
  });
}

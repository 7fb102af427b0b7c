// A TCP proxy on loopback that is cut or stalled on demand: between a node and its engine, or between a client and its
// node.
import { once } from "node:events";
import { connect, createServer } from "node:net";

/** Starts a proxy in front of a port on loopback. */
export async function startLink(port) {
  const pairs = new Set();
  let [isCut, isStalled] = [false, false];

  const listener = createServer({ pauseOnConnect: true }, (client) => {
    if (isCut) return client.destroy();
    const pair = { client };
    pairs.add(pair);
    client.on("error", () => client.destroy());
    client.on("close", () => close(pair));
    if (!isStalled) forward(pair);
  });

  function forward(pair) {
    const { client } = pair;
    const server = (pair.server = connect(link.to, "127.0.0.1"));
    for (const [from, to] of [[client, server], [server, client]]) {
      from.setNoDelay(true);
      from.on("data", (data) => to.write(data));
      from.on("end", () => to.end());
    }
    server.on("error", () => server.destroy());
    server.on("close", () => close(pair));
    client.resume();
  }

  function close(pair) {
    pairs.delete(pair);
    pair.client.destroy();
    pair.server?.destroy();
  }

  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const link = {
    /** Where new connections go. */
    to: port,
    host: `127.0.0.1:${listener.address().port}`,
    /** Closes all connections, and each new one at once. */
    cut() {
      isCut = true;
      pairs.forEach(close);
    },
    /** Holds everything back: connections stay, new ones are accepted, and nothing is forwarded. */
    stall() {
      isStalled = true;
      for (const { client, server } of pairs) for (const socket of [client, server]) socket?.pause();
    },
    /** Forwards everything again, also what was held back. */
    heal() {
      [isCut, isStalled] = [false, false];
      for (const pair of pairs) {
        if (!pair.server) forward(pair);
        for (const socket of [pair.client, pair.server]) socket.resume();
      }
    },
    stop() {
      listener.close();
      pairs.forEach(close);
    },
  };
  return link;
}

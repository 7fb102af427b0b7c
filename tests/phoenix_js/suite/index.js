// The whole suite for one version of the package. Each version runs in its own process, in parallel.
import { after, describe } from "node:test";
import { clients } from "../support/client.js";
import { example, startServer } from "../support/server.js";
import { binary } from "./binary.js";
import { broadcasts } from "./broadcasts.js";
import { channels } from "./channels.js";
import { connections } from "./connections.js";
import { fallback } from "./fallback.js";
import { presence } from "./presence.js";
import { recovery } from "./recovery.js";

export async function suite(name) {
  const server = await startServer(example("reference"));
  after(() => server.stop());

  for (const client of await clients(name, server)) {
    describe(client.name, () => {
      for (const part of [connections, channels, broadcasts, binary, presence, recovery]) describe(part.name, () => part(client));
      if (client.overWebSocket) describe(fallback.name, () => fallback(client));
    });
  }
}

import { moving } from "./moving/index.js";
import { FULL } from "./moving/world.js";

// The same protocol and the same client as over Redis: the long form suffices.
if (FULL) {
  moving("valkey");
}

import { MODULE } from "../support/browser.js";
import { people } from "./people.js";

people("phoenix.js", { "presence.js": MODULE });

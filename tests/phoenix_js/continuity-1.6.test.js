import { continuity } from "./continuity/index.js";

await continuity("phoenix-1.6");

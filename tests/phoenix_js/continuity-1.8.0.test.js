import { continuity } from "./continuity/index.js";

await continuity("phoenix-1.8.0");

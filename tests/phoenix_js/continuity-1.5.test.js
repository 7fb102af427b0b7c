import { continuity } from "./continuity/index.js";

// 1.5 has faults of its own, so its losses are reported, not judged
await continuity("phoenix-1.5", { judge: false });

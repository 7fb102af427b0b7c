import { continuity } from "./continuity/index.js";

// it has faults of its own: what it loses is reported
await continuity("phoenix-1.5", { judge: false });

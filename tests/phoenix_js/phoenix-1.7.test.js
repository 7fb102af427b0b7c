import { suite } from "./suite/index.js";

await suite("phoenix-1.7");

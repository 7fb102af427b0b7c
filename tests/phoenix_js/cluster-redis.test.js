import { processes } from "./cluster/index.js";

processes("redis");

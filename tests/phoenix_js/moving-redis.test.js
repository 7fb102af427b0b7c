import { moving } from "./moving/index.js";

moving("redis");

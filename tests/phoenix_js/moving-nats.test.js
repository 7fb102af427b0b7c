import { moving } from "./moving/index.js";

moving("nats");

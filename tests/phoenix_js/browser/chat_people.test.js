import { people } from "./people.js";

people("its own client", {});

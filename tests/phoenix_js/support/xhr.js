// The subset of XMLHttpRequest that phoenix.js before 1.8 needs, for Node. Events fire in the order of the standard:
// an abort or failure first fires `readystatechange` to 4 with an empty text.
import http from "node:http";

/** As the pages of one browser, all clients of a process share six connections; many clients need more. */
export const agent = new http.Agent({ keepAlive: true, maxSockets: 6 });
const DONE = 4;

export class XMLHttpRequest {
  readyState = 0;
  responseText = "";
  status = 0;
  timeout = 0;
  onreadystatechange = null;
  onerror = null;
  ontimeout = null;
  onabort = null;
  #request = null;
  #timer = null;

  open(method, url) {
    this.#request = http.request(url, { method, agent });
    this.readyState = 1;
  }

  setRequestHeader(name, value) {
    // phoenix.js 1.6 sets the content type even on GETs without a body, and browsers send it
    this.#request.setHeader(name, value);
  }

  send(body) {
    this.#request.on("response", (response) => {
      const chunks = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", () => this.#end("onerror"));
      response.on("end", () => {
        this.status = response.statusCode;
        this.responseText = Buffer.concat(chunks).toString();
        this.#end("onload");
      });
    });
    this.#request.on("error", () => this.#end("onerror"));
    if (this.timeout > 0) this.#timer = setTimeout(() => this.#end("ontimeout"), this.timeout);
    this.#request.end(body ?? undefined);
  }

  abort() {
    this.#end("onabort");
  }

  #end(event) {
    if (this.readyState === DONE) return;
    this.readyState = DONE;
    clearTimeout(this.#timer);
    if (event !== "onload") this.#request.destroy();
    this.onreadystatechange?.();
    this[event]?.();
  }
}

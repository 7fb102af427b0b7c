// A WebSocket of a busy page: the network stack takes every frame at once and answers pings, the page sees one
// message after another, and what it has not seen when the socket is closed it never sees. So do browsers.
import { WebSocket } from "ws";

/** `page.msPerMessage` is how long it takes over each. */
export const busyWebSocket = (page) =>
  class BusyWebSocket {
    #socket;
    #waiting = [];
    #timer = null;
    onopen = () => {};
    onerror = () => {};
    onmessage = () => {};
    onclose = () => {};

    constructor(url) {
      this.#socket = new WebSocket(url);
      this.#socket.binaryType = "arraybuffer";
      this.#socket.onopen = (event) => this.onopen(event);
      this.#socket.onerror = (event) => this.onerror(event);
      this.#socket.onclose = (event) => this.onclose(event);
      this.#socket.onmessage = ({ data }) => {
        if (this.readyState !== WebSocket.OPEN) return; // what comes after `close()` is not seen either
        this.#waiting.push(data);
        this.#timer ??= setTimeout(() => this.#see(), page.msPerMessage);
      };
    }

    get readyState() {
      return this.#socket.readyState;
    }

    send(data) {
      this.#socket.send(data);
    }

    close(code, reason) {
      this.#waiting = [];
      this.#socket.close(code, reason);
    }

    #see() {
      this.#timer = null;
      if (this.#waiting.length === 0) return;
      this.onmessage({ data: this.#waiting.shift() });
      this.#timer ??= setTimeout(() => this.#see(), page.msPerMessage);
    }
  };

import type { SocketConnectOption } from "phoenix";

/** What `keepSession` takes: the options of phoenix.js, and when to leave long poll for a WebSocket again. */
export interface KeepSessionOptions extends Partial<SocketConnectOption> {
  /** How long to stay on long poll before WebSocket is tried for the `tries`th time. 5 s at first, 5 minutes at last. */
  returnAfterMs?: (tries: number) => number;
  /** How long a WebSocket must live before the socket is moved to it. 5 s. */
  steadyAfterMs?: number;
}

/** Connect parameters that name the session and say what was received, and a decoder that counts. */
export interface KeptSession {
  params(): Record<string, unknown>;
  decode(payload: string, callback: (decoded: any) => void | Promise<void>): void;
}

/** Options for one phoenix.js `Socket` that keep its session. Call it once for each socket. */
export function keepSession<Options extends KeepSessionOptions>(options?: Options): Options & KeptSession;

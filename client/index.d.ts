import type { SocketConnectOption } from "phoenix";

/** Options of `keepSession`: those of phoenix.js, and when to move from long poll back to WebSocket. */
export interface KeepSessionOptions extends Partial<SocketConnectOption> {
  /**
   * How long to stay on long poll before WebSocket is tried for the `tries`th time, in milliseconds. Defaults to a
   * backoff from 5 seconds to 5 minutes.
   */
  returnAfterMs?: (tries: number) => number;
  /** How long a test WebSocket must stay open before the socket moves to it, in milliseconds. Defaults to 5000. */
  steadyAfterMs?: number;
}

/** What `keepSession` adds: the session's connect parameters, and a decoder that tracks sequence numbers. */
export interface ResumableSession {
  params(): Record<string, unknown>;
  decode(payload: string, callback: (decoded: any) => void | Promise<void>): void;
}

/** Returns options that make one phoenix.js `Socket` resumable. Call it once per socket. */
export function keepSession<Options extends KeepSessionOptions>(options?: Options): Options & ResumableSession;

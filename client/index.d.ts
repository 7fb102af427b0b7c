import type { SocketConnectOption } from "phoenix";

/** A push that was given up. */
export interface UnsentPush {
  topic: string;
  event: string;
  payload: any;
  ref: string;
  /**
   * - `timeout`: its time-out had passed before it could be sent, or sent again. It was not handled.
   * - `left`: its channel was left before the page was back. It was not handled.
   * - `session`: the server has another session. It may have been handled.
   * - `overflow`: too many pushes waited for their replies. It may have been handled.
   */
  reason: "timeout" | "left" | "session" | "overflow";
}

/** Options of `keepSession`: those of phoenix.js, and when to move from long poll back to WebSocket. */
export interface KeepSessionOptions extends Partial<SocketConnectOption> {
  /**
   * How long to stay on long poll before WebSocket is tried for the `tries`th time, in milliseconds. Defaults to a
   * backoff from 5 seconds to 5 minutes.
   */
  returnAfterMs?: (tries: number) => number;
  /** Called with the pushes that were given up. */
  onUnsent?: (pushes: UnsentPush[]) => void;
  /** Decides whether a push that is about to be given up for `timeout` or `session` is sent again. Defaults to no. */
  sendAgain?: (push: UnsentPush) => boolean;
  /** How long a test WebSocket must stay open before the socket moves to it, in milliseconds. Defaults to 5000. */
  steadyAfterMs?: number;
}

/** What `keepSession` adds: its connect parameters, and what tracks messages in both directions. */
export interface ResumableSession {
  params(): Record<string, unknown>;
  encode(payload: object, callback: (encoded: any) => void | Promise<void>): void;
  decode(payload: string, callback: (decoded: any) => void | Promise<void>): void;
}

/** Returns options that make one phoenix.js `Socket` resumable. Call it once per socket. */
export function keepSession<Options extends KeepSessionOptions>(options?: Options): Options & ResumableSession;

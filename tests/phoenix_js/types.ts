// Uses of `keepSession` that must or must not compile; `client.test.js` runs the compiler over this file.
import { Socket } from "phoenix";
import { keepSession } from "../../client/index.js";

new Socket("/socket", keepSession());
new Socket("/socket", keepSession({ params: { token: "t" }, longPollFallbackMs: 2500 }));
new Socket("/socket", keepSession({ params: () => ({ token: "t" }), returnAfterMs: (tries) => 1000 * tries }));

const options = keepSession({ timeout: 5000, steadyAfterMs: 1000 });
const timeout: number = options.timeout;
const params: Record<string, unknown> = options.params();
new Socket("/socket", { ...options, timeout, heartbeatIntervalMs: 10_000, params: () => params });

keepSession({
  onUnsent: (pushes) => pushes.map(({ topic, payload, reason }) => [topic, payload.key, reason === "left"]),
  sendAgain: ({ event, reason }) => event === "new_msg" && reason === "session",
});

// @ts-expect-error: there is no such reason
keepSession({ sendAgain: ({ reason }) => reason === "gone" });
// @ts-expect-error: not a function of the number of tries
keepSession({ returnAfterMs: 1000 });
// @ts-expect-error: options of phoenix.js are checked too
keepSession({ longPollFallbackMs: "soon" });
// @ts-expect-error: unknown options are rejected
keepSession({ longpollFallbackMs: 2500 });

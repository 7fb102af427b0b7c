// The state of a connection, and a bad network to try on it: what the pages of the examples have in common.
//
// A page puts `element` where it likes, calls `show` whenever the socket or a channel has changed, and `close` when it takes the
// element away for good.

const TRANSPORT_NAMES = { websocket: "WebSocket", longpoll: "Long poll" };
const WORDS = { closed: "closed", connecting: "connecting", open: "connected", joining: "joining", waiting: "reconnecting" };

const CUT_MS = 1_500;
const SLOW_MS = 1_500; // in each direction

const SWITCH = `
  <div class="switch" role="group" aria-label="Transport">
    <button type="button" data-testid="transport-ws" data-transport="websocket">WebSocket</button>
    <button type="button" data-testid="transport-lp" data-transport="longpoll">Long poll</button>
  </div>`;

const MENU = `
  <button type="button" data-testid="cut">Cut the connection
    <small>For a moment; the session continues</small></button>
  <button type="button" data-testid="offline" aria-pressed="false">Stay offline
    <small>Until it is chosen again</small></button>
  <button type="button" data-testid="slow" aria-pressed="false">Slow network
    <small>Each message takes ${SLOW_MS / 1000} s, up and down</small></button>
  <button type="button" data-testid="block-ws" aria-pressed="false">Block WebSocket
    <small>The session continues over long poll</small></button>
  <button type="button" data-testid="forget">End the session
    <small>As after a restart of the server, or a day away</small></button>`;

const LINE = `
  <p class="line">
    <span class="dot" aria-hidden="true"></span>
    <span class="status" data-testid="status" role="status"></span>
    <span class="rtt" data-testid="rtt" title="Round trip of the last heartbeat"></span>
  </p>`;

const duration = (ms) => (ms < 1_000 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1_000).toFixed(1)} s`);

// `isCompact` moves the choice of the transport into the menu. `isJoining` says that the connection is there, and a
// channel is not; `onpick` is called with the transport that the user has chosen.
export function network(socket, { isCompact = false, isJoining = () => false, onpick = () => {} } = {}) {
  const element = document.createElement("div");
  element.className = "wire";
  element.innerHTML = `${isCompact ? "" : SWITCH}${LINE}
    <details class="try" data-testid="try">
      <summary class="quiet">${isCompact ? "Network" : "Try it"}</summary>
      <div class="menu">${isCompact ? SWITCH : ""}${MENU}</div>
    </details>`;
  const part = (name) => element.querySelector(`[data-testid="${name}"]`);
  const menu = part("try");

  function show() {
    const name = TRANSPORT_NAMES[socket.transportName];
    const state = socket.offline ? "waiting" : socket.state === "open" && isJoining() ? "joining" : socket.state;
    element.dataset.state = state;
    const text = socket.offline ? "Offline" : `${name} · ${WORDS[state]}`;
    if (part("status").textContent !== text) part("status").textContent = text; // a change makes screen readers announce it
    part("status").title = socket.problem;
    part("rtt").textContent = socket.rtt === null ? "" : duration(socket.rtt);
    for (const choice of element.querySelectorAll("[data-transport]")) {
      choice.setAttribute("aria-pressed", choice.dataset.transport === socket.preferred);
    }
    part("offline").setAttribute("aria-pressed", socket.offline);
    part("slow").setAttribute("aria-pressed", socket.delay > 0);
    part("block-ws").setAttribute("aria-pressed", socket.blocked);
  }

  element.querySelector(".switch").addEventListener("click", ({ target }) => {
    const choice = target.closest("[data-transport]")?.dataset.transport;
    if (!choice) return;
    socket.use(choice);
    onpick(choice);
    show();
  });

  const faults = {
    cut: () => socket.cut(CUT_MS),
    offline: () => socket.stayOffline(!socket.offline),
    slow: () => socket.slow(socket.delay > 0 ? 0 : SLOW_MS),
    "block-ws": () => socket.block(!socket.blocked),
    forget: () => socket.forget(),
  };
  for (const [name, fault] of Object.entries(faults)) {
    part(name).addEventListener("click", () => {
      closeMenu();
      fault();
    });
  }

  // The focus stays with the menu, which has hidden what had it.
  function closeMenu() {
    menu.open = false;
    menu.firstElementChild.focus();
  }

  // A click or the focus elsewhere, or Escape, closes the menu.
  const closed = new AbortController();
  const clicked = ({ target }) => {
    if (!menu.contains(target)) menu.open = false;
  };
  document.addEventListener("click", clicked, { signal: closed.signal });
  menu.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape" || !menu.open) return;
    closeMenu();
  });
  menu.addEventListener("focusout", ({ relatedTarget }) => {
    if (relatedTarget && !menu.contains(relatedTarget)) menu.open = false;
  });

  show();
  return { element, show, close: () => closed.abort() };
}

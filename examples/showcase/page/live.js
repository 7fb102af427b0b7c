// Live updates: two devices show the same topics, the second over a slow network. Each acknowledges what it has shown.

import { Device } from "./device.js";
import { make } from "./make.js";
import { Sparkline } from "./plot.js";

const STEPS = 60; // on a plot
const STEP_S = 0.5;

let last = 0; // the newest step that any of the devices has got

export function live(part) {
  const devices = [
    new Device(part, { name: "Good network", user: "ada" }),
    new Device(part, { name: "Slow network", user: "ada", delay: 1_500 }),
  ];
  devices.forEach((device) => {
    ticker(device);
    scores(device);
  });
  return () => devices.forEach((device) => device.close());
}

// Joins a topic; `show` gets all values of the past 30 s that have arrived, [step, values], whenever there are more.
function follow(device, topic, show) {
  let points = [];
  const channel = device.channel(topic, ({ resumed, step, past }, isFirst) => {
    if (resumed) return;
    // A device that was there before shows what it has got.
    if (isFirst) points = past.map((values, i) => [step - past.length + 1 + i, values]);
    show(points, 0);
  });
  channel.on("values", ({ step, skipped, values }) => {
    points = [...points.filter(([at]) => at >= step - STEPS && at < step), [step, values]];
    show(points, skipped);
    channel.send("shown", {});
  });
  channel.join();
}

function ticker(device) {
  const list = make("ul", { className: "ticker" });
  const count = make("p", { className: "count", testid: "skipped" });
  device.body.append(make("h4", { textContent: "Prices" }), list, count);
  const rows = new Map(); // name -> row
  let skippedAtAll = 0;
  let shown = 0;

  follow(device, "live:ticker", (points, skipped) => {
    const [step, newest] = points.at(-1);
    for (const { name, price } of newest) {
      if (!rows.has(name)) rows.set(name, priceRow(list, name));
      const prices = points.map(([at, values]) => [at, values.find((it) => it.name === name).price]);
      rows.get(name)(price, prices, step);
    }
    skippedAtAll += skipped;
    shown += 1;
    last = Math.max(last, step);
    const behind = (last - step) * STEP_S;
    const age = behind < 1 ? "up to date" : `${behind} s behind`;
    count.textContent = `${shown} shown, ${skippedAtAll} skipped; ${age}`;
    count.dataset.step = step;
  });
}

function priceRow(list, name) {
  const sparkline = new Sparkline();
  const price = make("span", { className: "price" });
  const change = make("span", { className: "change" });
  const row = make("li", { testid: "price" }, make("span", { className: "name", textContent: name }), sparkline.element, price, change);
  list.append(row);
  return (newest, prices, step) => {
    const percent = (newest / prices[0][1] - 1) * 100;
    price.textContent = newest.toFixed(2);
    change.textContent = `${percent < 0 ? "−" : "+"}${Math.abs(percent).toFixed(2)} %`;
    row.dataset.trend = percent < 0 ? "down" : "up";
    sparkline.show(prices, step - STEPS, step);
  };
}

function scores(device) {
  const list = make("ul", { className: "scores" });
  const minute = make("span", { className: "minute" });
  const news = make("p", { className: "sr-only" });
  news.setAttribute("aria-live", "polite");
  device.body.append(make("h4", { textContent: "Scores " }, minute), list, news);
  const rows = new Map(); // home -> row
  let last = "";

  follow(device, "live:scores", (points) => {
    const [, { minute: now, games }] = points.at(-1);
    minute.textContent = `${now < 90 ? `${now}’` : "full time"}; line: the home team’s lead`;
    for (const game of games) {
      if (!rows.has(game.home)) rows.set(game.home, gameRow(list));
      rows.get(game.home)(game, now);
    }
    const text = games.map(({ home, away, goals }) => `${home} ${goals[0].length}, ${away} ${goals[1].length}`).join("; ");
    if (last !== "" && text !== last) news.textContent = text;
    last = text;
  });
}

function gameRow(list) {
  const sparkline = new Sparkline();
  const [home, away] = [make("span"), make("span", { className: "away" })];
  const result = make("span", { className: "result", testid: "result" });
  list.append(make("li", { testid: "game" }, home, result, away, sparkline.element));
  return (game, minute) => {
    home.textContent = game.home;
    away.textContent = game.away;
    const text = game.goals.map((goals) => goals.length).join(" : ");
    if (result.textContent !== text) {
      result.textContent = text;
      result.classList.remove("new");
      void result.offsetWidth; // starts the animation again
      result.classList.add("new");
    }
    sparkline.show(lead(game.goals, minute), 0, 90, [-2, 2]);
  };
}

// How far the home team is ahead, as steps over the minutes.
function lead([home, away], minute) {
  const goals = [...home.map((at) => [at, 1]), ...away.map((at) => [at, -1])].sort(([a], [b]) => a - b);
  const points = [[0, 0]];
  for (const [at, change] of goals) points.push([at, points.at(-1)[1]], [at, points.at(-1)[1] + change]);
  return [...points, [minute, points.at(-1)[1]]];
}

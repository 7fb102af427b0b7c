// A plot of the last minutes: lines over time, drawn as SVG. Pointer and arrow keys read single moments.

import { clock, el, say, svg } from "./dom.js";

const MINUTE = 60_000;
const HEIGHT = 132;
const TOP = 8;
const BOTTOM = 20;
const GAP_MS = 3_500; // longer without a sample, and the line is interrupted
let lastId = 0;

// Rounds up to a number that divides well, in units that are powers of `base`.
function ceiling(number, base) {
  const unit = base ** Math.floor(Math.log(number) / Math.log(base));
  const power = unit * 10 ** Math.floor(Math.log10(number / unit));
  return [1, 2, 3, 5, 10].map((factor) => factor * power).find((nice) => nice >= number * 0.999);
}

export class Plot {
  // `series` are {name, of(sample) -> number or null}; `show` formats a number; `least` is the smallest upper end, and `base` that of the
  // units.
  constructor(title, series, { show, least = 1, base = 10, hint = "" }) {
    this.series = series;
    this.show = show;
    this.least = least;
    this.base = base;
    this.samples = [];
    this.span = MINUTE; // how much is shown
    this.at = null; // the moment that is read, as the time of its sample
    const id = `plot-${(lastId += 1)}`;
    this.values = series.map(() => el("b"));
    const legend = series.map(({ name }, i) => el("span", { class: `key s${i + 1}` }, `${name} `, this.values[i]));
    this.time = el("span", { class: "time" });
    this.svg = svg("svg", { "aria-hidden": "true" });
    this.empty = el("p", { class: "none" }, hint || "Nothing yet");
    this.box = el("div", {
      class: "box",
      tabIndex: 0,
      role: "img",
      "aria-labelledby": id,
      "aria-describedby": `${id}-now`,
    }, this.svg, this.empty);
    this.now = el("p", { class: "hidden", id: `${id}-now` });
    this.node = el(
      "figure",
      { class: "plot" },
      el("figcaption", {}, el("span", { class: "title", id }, title), this.time, el("span", { class: "legend" }, ...legend)),
      this.box,
      this.now,
    );
    new ResizeObserver(() => this.draw()).observe(this.box);
    this.box.addEventListener("pointermove", (event) => this.#point(event));
    this.box.addEventListener("pointerleave", () => this.#read(null));
    this.box.addEventListener("blur", () => this.#read(null));
    this.box.addEventListener("keydown", (event) => this.#key(event));
  }

  // Shows the last minutes: as many as there are samples of, at most `longest` milliseconds.
  update(samples, longest) {
    this.samples = samples;
    const covered = samples.length > 0 ? samples.at(-1).t - samples[0].t : 0;
    this.span = Math.min(MINUTE * Math.max(1, Math.ceil(covered / MINUTE - 0.05)), longest);
    this.draw();
  }

  #point(event) {
    if (this.samples.length === 0) return;
    const { left, width } = this.box.getBoundingClientRect();
    const end = this.samples.at(-1).t;
    const wanted = end - this.span * (1 - (event.clientX - left) / width);
    const nearest = this.samples.reduce((a, b) => (Math.abs(b.t - wanted) < Math.abs(a.t - wanted) ? b : a));
    this.#read(nearest.t);
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Escape") this.#read(null);
    if (!step || this.samples.length === 0) return;
    event.preventDefault();
    const last = this.samples.length - 1;
    const now = this.at === null ? last : this.samples.findIndex(({ t }) => t === this.at);
    this.#read(this.samples[Math.min(Math.max(now + step, 0), last)].t);
  }

  #read(at) {
    if (this.at === at) return;
    this.at = at;
    this.draw();
  }

  draw() {
    const { series, show } = this;
    const width = this.box.clientWidth;
    const last = this.samples.at(-1);
    const samples = this.samples.filter(({ t }) => t >= last.t - this.span);
    const read = samples.find(({ t }) => t === this.at) ?? null;
    const shown = read ?? last;
    const text = (value) => (value === null || value === undefined ? "–" : show(value));
    // Unless a moment is read, the newest value: not every sample has one.
    const valueOf = (of) => (read ? of(read) : samples.map(of).findLast((value) => value !== null));
    series.forEach(({ of }, i) => say(this.values[i], text(valueOf(of))));
    say(this.time, read ? clock(read.t) : "");
    if (this.box.matches(":focus-visible") && shown) {
      say(this.now, `${clock(shown.t)}: ${series.map(({ name, of }) => `${name} ${text(valueOf(of))}`).join(", ")}`);
    }
    const all = series.flatMap(({ of }) => samples.map(of)).filter((value) => value !== null);
    this.empty.hidden = all.length > 0;
    if (width === 0 || !last) return;

    const top = ceiling(Math.max(this.least, ...all), this.base);
    const x = (t) => width * (1 - (last.t - t) / this.span);
    const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
    const parts = [];
    for (const share of [0, 0.5, 1]) {
      const at = Math.round(y(top * share)) + 0.5;
      parts.push(svg("line", { class: share === 0 ? "axis" : "grid", x1: 0, x2: width, y1: at, y2: at }));
    }
    series.forEach(({ of }, i) => {
      const { line, area } = path(samples, of, x, y);
      if (i === 0) parts.push(svg("path", { class: "area s1", d: area }));
      parts.push(svg("path", { class: `line s${i + 1}`, d: line }));
    });
    for (const share of [0.5, 1]) {
      parts.push(label(2, y(top * share) - 3, show(top * share), "start"));
    }
    const minutes = this.span / MINUTE;
    for (let ago = minutes; ago >= 0; ago -= 1) {
      const anchor = ago === minutes ? "start" : ago === 0 ? "end" : "middle";
      const word = ago === 0 ? "now" : `−${ago} min`;
      if (ago === 0 || ago === minutes || width > 420) parts.push(label((width * (minutes - ago)) / minutes, HEIGHT - 5, word, anchor));
    }
    if (read) {
      const at = x(read.t);
      parts.push(svg("line", { class: "cursor", x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }));
      series.forEach(({ of }, i) => {
        if (of(read) !== null) parts.push(svg("circle", { class: `point s${i + 1}`, cx: at, cy: y(of(read)), r: 3.5 }));
      });
    }
    this.svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    this.svg.replaceChildren(...parts);
  }
}

function label(x, y, text, anchor) {
  const node = svg("text", { x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

// The line through the samples, and the area below it. Both are interrupted where samples are missing.
function path(samples, of, x, y) {
  let line = "";
  let area = "";
  let begin = null;
  let before = null;
  const close = () => {
    if (begin !== null) area += `L${x(before.t).toFixed(1)} ${y(0)}L${x(begin.t).toFixed(1)} ${y(0)}Z`;
    begin = null;
  };
  for (const sample of samples) {
    const value = of(sample);
    if (value === null) continue;
    const isGap = before !== null && sample.t - before.t > GAP_MS;
    if (begin === null || isGap) {
      close();
      begin = sample;
    }
    const place = `${x(sample.t).toFixed(1)} ${y(value).toFixed(1)}`;
    const point = `${begin === sample ? "M" : "L"}${place}`;
    // A line of no length is seen as a dot: a sample without neighbours.
    line += begin === sample ? `${point}L${place}` : point;
    area += point;
    before = sample;
  }
  close();
  return { line, area };
}

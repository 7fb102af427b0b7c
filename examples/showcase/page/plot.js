// Sparklines: small plots without axes. They are decoration to screen readers, which read the numbers beside them.

const SVG = "http://www.w3.org/2000/svg";

export class Sparkline {
  #line = document.createElementNS(SVG, "polyline");
  #end = document.createElementNS(SVG, "line");

  constructor() {
    this.element = document.createElementNS(SVG, "svg");
    this.element.setAttribute("class", "sparkline");
    this.element.setAttribute("viewBox", "0 0 100 30");
    this.element.setAttribute("preserveAspectRatio", "none");
    this.element.setAttribute("aria-hidden", "true");
    this.#end.setAttribute("class", "end");
    this.element.append(this.#line, this.#end);
  }

  // Shows points [x, y] within `from` and `to` on the x axis; `range` is the smallest range of the y axis.
  show(points, from, to, range = [Infinity, -Infinity]) {
    const low = Math.min(range[0], ...points.map(([, y]) => y));
    const high = Math.max(range[1], ...points.map(([, y]) => y));
    const scaled = points.map(([x, y]) => [
      ((x - from) / (to - from)) * 98 + 1,
      high === low ? 15 : 28 - ((y - low) / (high - low)) * 26,
    ]);
    this.#line.setAttribute("points", scaled.map((point) => point.map((n) => n.toFixed(2)).join()).join(" "));
    const [x, y] = scaled.at(-1) ?? [0, 15];
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: y, y2: y })) this.#end.setAttribute(name, value.toFixed(2));
  }
}

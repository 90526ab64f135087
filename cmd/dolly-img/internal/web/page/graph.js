// The rate over the last minutes.
import { svg, rate, day } from "./text.js";

const most = 900; // seconds
const W = 480, H = 170, left = 64, right = 8, top = 10, bottom = 24;

export class Graph {
  constructor(root, history, began) {
    this.root = root;
    this.began = began;
    this.points = history ?? [];
    root.setAttribute("viewBox", `0 0 ${W} ${H}`);
    this.draw();
  }

  add(t, rate) {
    if (this.points.length && this.points[this.points.length - 1][0] >= Math.floor(t)) return;
    this.points.push([Math.floor(t), rate]);
    this.draw();
  }

  draw() {
    const end = this.points.length ? this.points[this.points.length - 1][0] : 0;
    while (this.points.length && this.points[0][0] < end - most) this.points.shift();
    const begin = Math.min(this.points[0]?.[0] ?? 0, end - 60);
    const peak = Math.max(1e6, ...this.points.map((p) => p[1]));
    const step = nice(peak / 3);
    const max = Math.ceil(peak / step) * step;
    const x = (t) => left + ((t - begin) / (end - begin)) * (W - left - right);
    const y = (r) => H - bottom - (r / max) * (H - top - bottom);
    const parts = [];
    for (let r = 0; r <= max; r += step) {
      parts.push(svg("line", { x1: left, x2: W - right, y1: y(r), y2: y(r), class: "line" }));
      parts.push(svg("text", { x: left - 6, y: y(r) + 4, "text-anchor": "end" }, r === 0 ? "0" : rate(r)));
    }
    const every = [10, 20, 30, 60, 120, 300].find((s) => (end - begin) / s <= 5);
    for (let t = Math.ceil(begin / every) * every; t <= end; t += every) {
      parts.push(svg("line", { x1: x(t), x2: x(t), y1: H - bottom, y2: H - bottom + 4, class: "line" }));
      if (x(t) < W - 70) parts.push(svg("text", { x: x(t), y: H - 6, "text-anchor": "middle" }, t < 0 ? "" : day(this.began + 1000 * t)));
    }
    parts.push(svg("text", { x: W - right, y: H - 6, "text-anchor": "end" }, "now"));
    if (this.points.length > 1) {
      const line = this.points.map(([t, r]) => `${x(t).toFixed(1)},${y(r).toFixed(1)}`).join(" ");
      parts.push(svg("polygon", { points: `${x(this.points[0][0]).toFixed(1)},${y(0)} ${line} ${x(end).toFixed(1)},${y(0)}`, class: "area" }));
      parts.push(svg("polyline", { points: line, class: "curve" }));
    }
    this.root.replaceChildren(...parts);
    const now = this.points.length ? this.points[this.points.length - 1][1] : 0;
    this.root.setAttribute("aria-label", `rate over the last ${Math.max(1, Math.round((end - begin) / 60))} minutes: now ${rate(now)}, at most ${rate(peak)}`);
  }
}

// nice is the next of 1, 2, 5, 10, 20, … that is not smaller.
function nice(n) {
  const unit = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((k) => k * unit).find((s) => s >= n);
}

// The hashrate chart: one area line in SVG with axes and a cursor that follows pointer and arrow keys.

import { clock, digits, hashrate, scaleOf } from "/assets/format.js";

const margin = { top: 12, right: 8, bottom: 26, left: 46 };
const minute = 60_000;

function svg(name, attributes = {}, text) {
  const el = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) el.setAttribute(key, value);
  if (text !== undefined) el.textContent = text;
  return el;
}

// niceStep is the smallest of 1, 2, 2.5 and 5 times a power of ten that divides max into at most count parts.
function niceStep(max, count) {
  const raw = max / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 2.5, 5, 10].find((m) => m * power >= raw);
}

export class Chart {
  #host;
  #points = []; // {time, value}, oldest first
  #cursor = -1;
  #marks;
  #x;
  #y;

  constructor(host) {
    this.#host = host;
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    this.tip.append(document.createElement("strong"), document.createElement("span"));
    new ResizeObserver(() => this.#draw()).observe(host);
    host.addEventListener("pointermove", (e) => this.#point(e.clientX - host.getBoundingClientRect().left));
    host.addEventListener("pointerleave", () => this.#moveTo(-1));
    host.addEventListener("blur", () => this.#moveTo(-1));
    host.addEventListener("keydown", (e) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[e.key];
      if (!by || this.#points.length === 0) return;
      e.preventDefault();
      const last = this.#points.length - 1;
      const from = this.#cursor < 0 ? last + (by < 0 ? 1 : 0) : this.#cursor;
      this.#moveTo(Math.max(0, Math.min(last, from + by)));
    });
  }

  // show draws a series and, at its end, the rate right now. What lies before the first work is left out.
  show(series, now, rate) {
    const start = Date.parse(series.start);
    const step = series.step_seconds * 1000;
    const points = series.hashrate.map((value, i) => ({ time: start + (i + 0.5) * step, value }));
    const first = points.findIndex((p) => p.value > 0);
    this.#points = first < 0 ? [] : points.slice(Math.max(0, first - 1));
    if (rate > 0) this.#points.push({ time: now, value: rate });
    this.#draw();
  }

  #draw() {
    const width = this.#host.clientWidth;
    const height = this.#host.clientHeight;
    if (width === 0) return;
    const points = this.#points;
    const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const inner = { width: width - margin.left - margin.right, height: height - margin.top - margin.bottom };

    const end = points.length ? points.at(-1).time : Date.now();
    const begin = points.length ? Math.min(points[0].time, end - 10 * minute) : end - 60 * minute;
    const peak = Math.max(0, ...points.map((p) => p.value));
    const step = peak > 0 ? niceStep(peak * 1.08, 4) : 1;
    const top = Math.ceil((peak * 1.08) / step) * step || 1;
    this.#x = (time) => margin.left + (inner.width * (time - begin)) / (end - begin);
    this.#y = (value) => margin.top + inner.height * (1 - value / top);

    const { factor, unit } = scaleOf(top);
    for (let value = 0; value <= top * 1.001; value += step) {
      const y = Math.round(this.#y(value)) + 0.5;
      root.append(svg("line", { class: value === 0 ? "axis" : "grid", x1: margin.left, x2: width - margin.right, y1: y, y2: y }));
      if (peak > 0) root.append(svg("text", { class: "tick", x: margin.left - 8, y: y + 4, "text-anchor": "end" }, trim(value / factor)));
    }
    if (peak > 0) root.append(svg("text", { class: "tick unit", x: 0, y: margin.top + inner.height + 20 }, unit));

    const every = (end - begin) / minute > 30 ? (inner.width < 420 ? 20 : 10) : (inner.width < 420 ? 5 : 2);
    const offset = new Date(end).getTimezoneOffset() * minute;
    for (let t = Math.ceil((begin - offset) / (every * minute)) * every * minute + offset; t <= end; t += every * minute) {
      const x = this.#x(t);
      if (x < margin.left + 24 || x > width - margin.right - 16) continue;
      root.append(svg("text", { class: "tick", x, y: height - 6, "text-anchor": "middle" }, clock(new Date(t))));
    }

    if (points.length > 0) {
      const line = points.map((p, i) => `${i ? "L" : "M"}${this.#x(p.time).toFixed(1)} ${this.#y(p.value).toFixed(1)}`).join("");
      const floor = this.#y(0).toFixed(1);
      const gradient = svg("linearGradient", { id: "fade", x1: 0, x2: 0, y1: 0, y2: 1 });
      gradient.append(svg("stop", { class: "fade-top", offset: 0 }), svg("stop", { class: "fade-end", offset: 1 }));
      const last = points.at(-1);
      root.append(
        gradient,
        svg("path", { class: "area", d: `${line}L${this.#x(last.time).toFixed(1)} ${floor}L${this.#x(points[0].time).toFixed(1)} ${floor}Z` }),
        svg("path", { class: "line", d: line }),
        svg("circle", { class: "now", cx: this.#x(last.time), cy: this.#y(last.value), r: 3.5 }),
      );
    } else {
      root.append(svg("text", { class: "tick", x: width / 2, y: height / 2, "text-anchor": "middle" }, "No shares in the last hour"));
    }
    this.#marks = { rule: svg("line", { class: "rule", y1: margin.top, y2: margin.top + inner.height }), dot: svg("circle", { class: "mark", r: 4.5 }) };
    root.append(this.#marks.rule, this.#marks.dot);
    this.#host.replaceChildren(root, this.tip);
    const values = points.map((p) => p.value);
    this.#host.setAttribute("aria-label", points.length === 0
      ? "Hashrate of the last hour: no shares"
      : `Hashrate of the last hour: now ${hashrate(values.at(-1))}, lowest ${hashrate(Math.min(...values))}, highest ${hashrate(peak)}. Arrow keys read single minutes.`);
    this.#moveTo(Math.min(this.#cursor, points.length - 1));
  }

  #point(x) {
    let best = -1;
    let distance = Infinity;
    this.#points.forEach((p, i) => {
      const d = Math.abs(this.#x(p.time) - x);
      if (d < distance) [best, distance] = [i, d];
    });
    this.#moveTo(best);
  }

  #moveTo(i) {
    this.#cursor = i;
    const visible = i >= 0;
    this.tip.hidden = !visible;
    for (const mark of Object.values(this.#marks ?? {})) mark.classList.toggle("on", visible);
    if (!visible) return;
    const p = this.#points[i];
    const x = this.#x(p.time);
    this.#marks.rule.setAttribute("x1", x);
    this.#marks.rule.setAttribute("x2", x);
    this.#marks.dot.setAttribute("cx", x);
    this.#marks.dot.setAttribute("cy", this.#y(p.value));
    const [value, time] = this.tip.children;
    value.textContent = hashrate(p.value);
    time.textContent = i === this.#points.length - 1 ? "now" : clock(new Date(p.time));
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.max(half, Math.min(this.#host.clientWidth - half, x))}px`;
    if (document.activeElement === this.#host) this.#host.setAttribute("aria-label", `${value.textContent}, ${time.textContent}`);
  }
}

// trim writes an axis value without trailing zeros.
function trim(v) {
  return String(Number(digits(v)));
}

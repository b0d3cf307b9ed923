// The hashrate chart: one area line in SVG with axes and a cursor that follows pointer and arrow keys.

import { clock, dayOf, hashrate, monthOf, scaleOf, trim } from "/assets/format.js";
import { t } from "/assets/text.js";

const margin = { top: 12, right: 8, bottom: 26, left: 46 };
const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
const steps = [2 * minute, 5 * minute, 10 * minute, 20 * minute, hour, 3 * hour, 6 * hour, day, 2 * day, 5 * day];

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

// ticks are the round times between begin and end in the viewer's zone, at most count, and how they read.
function ticks(begin, end, count) {
  const step = steps.find((s) => (end - begin) / s <= count);
  const all = [];
  const at = new Date(begin);
  if (step) {
    at.setHours(0, 0, 0, 0);
    for (; at <= end; step < day ? at.setTime(at.getTime() + step) : at.setDate(at.getDate() + step / day)) {
      if (at >= begin) all.push({ time: at.getTime(), text: step < day ? clock(at) : dayOf(at) });
    }
    return all;
  }
  const months = Math.max(1, Math.ceil((end - begin) / (30.5 * day) / count));
  at.setHours(0, 0, 0, 0);
  at.setDate(1);
  for (; at <= end; at.setMonth(at.getMonth() + months)) {
    if (at >= begin) all.push({ time: at.getTime(), text: monthOf(at) });
  }
  return all;
}

// runs are the points between those of which nothing is known.
function runs(points) {
  const all = [];
  let open = false;
  for (const p of points) {
    if (p.value === null) open = false;
    else if (open) all.at(-1).push(p);
    else open = all.push([p]) > 0;
  }
  return all;
}

let charts = 0;

export class Chart {
  #host;
  #fade = `fade-${++charts}`; // the id of its gradient
  #points = []; // {time, value, now}, oldest first; value is null where it is not known
  #of = "";
  #none = "";
  #cursor = -1;
  #marks;
  #x;
  #y;

  constructor(host) {
    this.#host = host;
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    this.tip.append(document.createElement("strong"), document.createElement("time"));
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

  // show draws points; what lies before the first work is left out, and where nothing is known the line is broken.
  show(points, { of, none }) {
    const first = points.findIndex((p) => p.value > 0);
    const known = first < 0 ? [] : points.slice(Math.max(0, first - 1));
    while (known.length > 0 && known.at(-1).value === null) known.pop();
    this.#points = known;
    this.#of = of;
    this.#none = none;
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
    const values = points.map((p) => p.value).filter((v) => v !== null);
    const peak = Math.max(0, ...values);
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

    for (const { time, text } of ticks(begin, end, inner.width / 74)) {
      const x = this.#x(time);
      if (x < margin.left + 24 || x > width - margin.right - 16) continue;
      root.append(svg("text", { class: "tick", x, y: height - 6, "text-anchor": "middle" }, text));
    }

    if (points.length > 0) {
      const floor = this.#y(0).toFixed(1);
      let line = "";
      let area = "";
      for (const run of runs(points)) {
        const path = run.map((p, i) => `${i ? "L" : "M"}${this.#x(p.time).toFixed(1)} ${this.#y(p.value).toFixed(1)}`).join("");
        line += path;
        area += `${path}L${this.#x(run.at(-1).time).toFixed(1)} ${floor}L${this.#x(run[0].time).toFixed(1)} ${floor}Z`;
      }
      const gradient = svg("linearGradient", { id: this.#fade, x1: 0, x2: 0, y1: 0, y2: 1 });
      gradient.append(svg("stop", { class: "fade-top", offset: 0 }), svg("stop", { class: "fade-end", offset: 1 }));
      const last = points.at(-1);
      root.append(
        gradient,
        svg("path", { class: "area", d: area, fill: `url(#${this.#fade})` }),
        svg("path", { class: "line", d: line }),
        svg("circle", { class: "now", cx: this.#x(last.time), cy: this.#y(last.value), r: 3.5 }),
      );
    } else {
      root.append(svg("text", { class: "tick", x: width / 2, y: height / 2, "text-anchor": "middle" }, this.#none));
    }
    this.#marks = { rule: svg("line", { class: "rule", y1: margin.top, y2: margin.top + inner.height }), dot: svg("circle", { class: "mark", r: 4.5 }) };
    root.append(this.#marks.rule, this.#marks.dot);
    this.#host.replaceChildren(root, this.tip);
    this.#host.setAttribute("aria-label", points.length === 0
      ? t("chart.empty", { of: this.#of, none: this.#none })
      : t("chart.summary", { of: this.#of, last: hashrate(values.at(-1)), lowest: hashrate(Math.min(...values)), highest: hashrate(peak) }));
    this.#moveTo(Math.min(this.#cursor, points.length - 1));
  }

  #point(x) {
    let best = -1;
    let distance = Infinity;
    this.#points.forEach((p, i) => {
      if (p.value === null) return;
      const d = Math.abs(this.#x(p.time) - x);
      if (d < distance) [best, distance] = [i, d];
    });
    this.#moveTo(best);
  }

  #moveTo(i) {
    this.#cursor = i;
    const visible = i >= 0 && this.#points[i].value !== null;
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
    const long = this.#points.at(-1).time - this.#points[0].time > 1.5 * day;
    time.textContent = p.now ? t("time.now") : (long ? `${dayOf(p.time)}, ` : "") + clock(p.time);
    const half = this.tip.offsetWidth / 2;
    this.tip.style.left = `${Math.max(half, Math.min(this.#host.clientWidth - half, x))}px`;
    if (document.activeElement === this.#host) this.#host.setAttribute("aria-label", `${value.textContent}, ${time.textContent}`);
  }
}

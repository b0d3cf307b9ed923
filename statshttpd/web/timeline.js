// A chart with a switch for its range: an hour to a year of the pool, a user or a worker.

import { Chart } from "/assets/chart.js";
import { make } from "/assets/dom.js";
import { address, ask } from "/assets/paths.js";

const ranges = {
  hour: { text: "Hour", of: "the last hour", step: "minute", limit: 60, join: 1, every: 20 },
  day: { text: "Day", of: "the last day", step: "minute", limit: 1440, join: 10, every: 60 },
  week: { text: "Week", of: "the last week", step: "hour", limit: 168, join: 1, every: 300 },
  month: { text: "Month", of: "the last month", step: "hour", limit: 720, join: 6, every: 300 },
  year: { text: "Year", of: "the last year", step: "day", limit: 366, join: 1, every: 300 },
};

// points are the parts of a series, so many joined to one; null where nothing is known.
function points(series, join) {
  const start = Date.parse(series.start);
  const step = series.step_seconds * 1000 * join;
  const all = [];
  for (let i = 0; i < series.hashrate.length; i += join) {
    const known = series.hashrate.slice(i, i + join).filter((v) => v !== null);
    all.push({ time: start + (i / join + 0.5) * step, value: known.length ? known.reduce((a, b) => a + b) / known.length : null });
  }
  return all;
}

export class Timeline {
  #chart;
  #csv;
  #buttons;
  #range = "hour";
  #path = "";
  #looked = 0; // when the history was asked for, 0 when it must be
  #now;
  #drawn = {}; // path and range that the chart shows

  constructor(host, controls, onChange) {
    this.#chart = new Chart(host);
    this.#buttons = Object.entries(ranges).map(([name, { text }]) => {
      const button = make("button", "", text);
      button.type = "button";
      button.addEventListener("click", () => {
        this.#range = name;
        this.#looked = 0;
        this.#mark();
        onChange();
      });
      button.dataset.range = name;
      return button;
    });
    const group = make("div", "ranges", ...this.#buttons);
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", "Range of the chart");
    this.#csv = make("a", "csv", "CSV");
    this.#csv.setAttribute("download", "");
    controls.replaceChildren(group, this.#csv);
    this.#mark();
  }

  #mark() {
    for (const b of this.#buttons) b.setAttribute("aria-pressed", String(b.dataset.range === this.#range));
    const { step, limit } = ranges[this.#range];
    this.#csv.href = address(`${this.#path}/history`, { step, limit, format: "csv" });
  }

  // show draws what path did in the range until now, where it has that rate. The last hour may be known already.
  async show(path, now, rate, hour) {
    if (path !== this.#path) {
      this.#path = path;
      this.#looked = 0;
      this.#mark();
    }
    const range = ranges[this.#range];
    this.#now = { time: now, value: rate ?? 0 };
    if (hour && this.#range === "hour") return this.#draw(points(hour, 1), range);
    if (Date.now() - this.#looked < range.every * 1000) return;
    this.#looked = Date.now();
    const asked = `${path} ${this.#range}`;
    try {
      const history = await ask(`${path}/history`, { step: range.step, limit: range.limit });
      if (asked !== `${this.#path} ${this.#range}`) return; // another one by now
      this.#draw(points(history, range.join), range);
    } catch {
      if (asked !== `${this.#path} ${this.#range}`) return;
      if (this.#drawn.path === path) {
        this.#range = this.#drawn.range; // a switch that failed
        this.#mark();
      } else {
        this.#chart.show([], { of: range.of, none: "No history now: the database does not answer" });
        this.#drawn = {};
      }
      this.#looked = Date.now() - (ranges[this.#range].every - 10) * 1000; // again in 10 s
    }
  }

  #draw(all, range) {
    const last = all.at(-1);
    if (this.#range === "hour" && this.#now.value > 0 && (!last || this.#now.time > last.time)) all.push({ ...this.#now, now: true });
    this.#chart.show(all, { of: range.of, none: `No shares in ${range.of}` });
    this.#drawn = { path: this.#path, range: this.#range };
  }
}

// The panel on top of every page: the hashrate, its averages, and its chart with a switch for the range.

import { Chart } from "/assets/chart.js";
import { choice, make, set } from "/assets/dom.js";
import { digits, hashrate, scaleOf } from "/assets/format.js";
import { address, ask } from "/assets/paths.js";
import { t } from "/assets/text.js";

const ranges = {
  hour: { step: "minute", limit: 60, join: 1, every: 20 },
  day: { step: "minute", limit: 1440, join: 10, every: 60 },
  week: { step: "hour", limit: 168, join: 1, every: 300 },
  month: { step: "hour", limit: 720, join: 6, every: 300 },
  year: { step: "day", limit: 366, join: 1, every: 300 },
};

const spans = ["15m", "1h", "1d"];

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

// Timeline is a chart with a switch for its range: an hour to a year of the pool, a user or a worker.
class Timeline {
  #chart;
  #csv;
  #ranges;
  #range = "hour";
  #path = "";
  #looked = 0; // when the history was asked for, 0 when it must be
  #now;
  #hour; // the series of the last hour, where it is known without asking
  #drawn = {}; // path and range that the chart shows

  constructor(host, controls) {
    this.#chart = new Chart(host);
    this.#ranges = choice(t("range.which"), Object.keys(ranges).map((name) => [name, t(`range.${name}`)]), this.#range, (name) => {
      this.#range = name;
      this.#looked = 0;
      this.#mark();
      this.show(this.#path, this.#now.time, this.#now.value, this.#hour);
    });
    this.#csv = make("a", { class: "csv", download: "download" }, t("csv"));
    controls.append(this.#ranges.group, this.#csv);
    this.#mark();
  }

  #mark() {
    this.#ranges.press(this.#range);
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
    this.#hour = hour;
    if (hour && this.#range === "hour") return this.#draw(points(hour, 1));
    if (Date.now() - this.#looked < range.every * 1000) return;
    this.#looked = Date.now();
    const asked = `${path} ${this.#range}`;
    try {
      const history = await ask(`${path}/history`, { step: range.step, limit: range.limit });
      if (asked !== `${this.#path} ${this.#range}`) return; // another one by now
      this.#draw(points(history, range.join));
    } catch {
      if (asked !== `${this.#path} ${this.#range}`) return;
      if (this.#drawn.path === path) {
        this.#range = this.#drawn.range; // a switch that failed
        this.#mark();
      } else {
        this.#chart.show([], { of: t(`range.of.${this.#range}`), none: t("chart.away") });
        this.#drawn = {};
      }
      this.#looked = Date.now() - (ranges[this.#range].every - 10) * 1000; // again in 10 s
    }
  }

  #draw(all) {
    const last = all.at(-1);
    if (this.#range === "hour" && this.#now.value > 0 && (!last || this.#now.time > last.time)) all.push({ ...this.#now, now: true });
    this.#chart.show(all, { of: t(`range.of.${this.#range}`), none: t(`range.none.${this.#range}`) });
    this.#drawn = { path: this.#path, range: this.#range };
  }
}

export class Hashrate {
  #figure = make("span", "");
  #unit = make("span", "unit");
  #note = make("p", "sub");
  #averages = spans.map(() => make("dd", "", "–"));
  #timeline;

  constructor(section, { title, heading = "h2" }) {
    const name = make(heading, { class: "label", id: `${section.id}-title` }, t(title));
    section.setAttribute("aria-labelledby", name.id);
    section.classList.add("hero", "panel");
    const averages = make("dl", "averages", ...spans.map((span, i) => make("div", "", make("dt", "", t(`span.${span}`)), this.#averages[i])));
    const controls = make("div", "controls");
    const chart = make("div", { class: "chart", tabindex: "0", role: "img" });
    section.append(make("div", "hero-figures", make("div", "", name, make("p", "big", this.#figure, this.#unit), this.#note), averages), controls, chart);
    this.#timeline = new Timeline(chart, controls);
  }

  // show shows a rate in H/s, null where it is not known, with what is to be said of it, and averages as figure writes them.
  show(rate, note, rates, figure = hashrate) {
    const { factor, unit } = scaleOf(rate ?? 0);
    set(this.#figure, rate === null ? "–" : digits(rate / factor));
    set(this.#unit, rate === null ? "" : unit);
    set(this.#note, note);
    spans.forEach((span, i) => set(this.#averages[i], span === "1d" && rates[span] === null ? "–" : figure(rates[span])));
  }

  draw(...what) {
    this.#timeline.show(...what);
  }
}

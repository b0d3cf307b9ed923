// Figures as people read them, in the language of the page.

import { t, tag } from "/assets/text.js";

const prefixes = ["", "k", "M", "G", "T", "P", "E", "Z"];

// scaled is a number with a prefix, so that it has one to three digits before the point.
function scaled(v) {
  let i = 0;
  for (; v >= 999.5 && i < prefixes.length - 1; v /= 1000) i++;
  return { v, prefix: prefixes[i] };
}

// scaleOf returns the unit that suits a hashrate, and how many H/s it is.
export function scaleOf(hashesPerSecond) {
  const { prefix } = scaled(hashesPerSecond);
  return { factor: 1000 ** prefixes.indexOf(prefix), unit: t("unit.hashrate", { prefix }) };
}

const fixed = [0, 1, 2].map((places) => new Intl.NumberFormat(tag, { minimumFractionDigits: places, maximumFractionDigits: places }));
const trimmed = new Intl.NumberFormat(tag, { maximumSignificantDigits: 3 });
const coins = new Intl.NumberFormat(tag, { minimumFractionDigits: 2, maximumFractionDigits: 8 });

const places = (v) => (v >= 99.95 || v === 0 ? 0 : v >= 9.995 ? 1 : 2);

// digits writes a number with three significant digits, without exponent.
export const digits = (v) => fixed[places(v)].format(v);

// trim writes the value of an axis, without trailing zeros.
export const trim = (v) => trimmed.format(v);

export const integer = (n) => fixed[0].format(n);

// hashrate writes what is not known yet as such: it is not zero.
export function hashrate(v) {
  if (v === null) return t("measuring");
  const { factor, unit } = scaleOf(v);
  return t("value.unit", { value: digits(v / factor), unit });
}

export function difficulty(v) {
  if (v > 0 && v < 0.01) {
    const exponent = Math.floor(Math.log10(v));
    return `${fixed[2].format(v / 10 ** exponent)} × 10${superscript(exponent)}`;
  }
  const { v: value, prefix } = scaled(v);
  return prefix ? t("value.prefix", { value: digits(value), prefix: prefix === "k" ? "K" : prefix }) : digits(value);
}

function superscript(n) {
  return String(n).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻");
}

const percents = [0, 1, 2].map((n) => new Intl.NumberFormat(tag, { style: "percent", minimumFractionDigits: n, maximumFractionDigits: n }));

export function percent(ratio) {
  const p = ratio * 100;
  if (p > 0 && p < 0.01) return `< ${percents[2].format(0.0001)}`;
  return percents[p === 0 || p >= 9.95 ? 0 : p >= 0.995 ? 1 : 2].format(ratio);
}

// effort writes a part of the work that a block takes, and how many times that work when it is a lot.
export function effort(ratio) {
  return ratio < 10 ? percent(ratio) : `${difficulty(ratio)} ×`;
}

// bitcoin writes satoshi as BTC.
export const bitcoin = (satoshi) => coins.format(satoshi / 1e8);

// short leaves out the middle of a long account, as addresses are, so that its worker can be seen.
export function short(name) {
  const dot = name.indexOf(".");
  const account = dot < 0 ? name : name.slice(0, dot);
  return account.length <= 24 ? name : `${account.slice(0, 7)}…${account.slice(-5)}${name.slice(account.length)}`;
}

const year = 365.25 * 86400;
const steps = [[86400, "time.days"], [3600, "time.hours"], [60, "time.minutes"]];

// duration writes seconds in its largest unit, and the next one where that matters.
export function duration(seconds) {
  if (seconds >= 2 * year) {
    const n = seconds / year;
    return t("time.years", { n: n < 100_000 ? n : difficulty(n) });
  }
  for (let i = 0; i < steps.length; i++) {
    const [size, unit] = steps[i];
    if (seconds < size) continue;
    const n = Math.floor(seconds / size);
    const rest = i + 1 < steps.length && n < 10 ? Math.floor((seconds % size) / steps[i + 1][0]) : 0;
    return rest ? t("time.both", { large: t(unit, { n }), small: t(steps[i + 1][1], { n: rest }) }) : t(unit, { n });
  }
  return t("time.seconds", { n: Math.max(0, Math.floor(seconds)) });
}

export function ago(seconds) {
  return seconds < 3 ? t("time.now") : t("time.ago", { time: duration(seconds) });
}

const date = (options) => {
  const format = new Intl.DateTimeFormat(tag, options);
  return (time) => format.format(new Date(time));
};
export const clock = date({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
export const moment = date({ dateStyle: "medium", timeStyle: "short", hourCycle: "h23" });
export const dayOf = date({ day: "numeric", month: "short" });
export const monthOf = date({ month: "short" });

// Figures as people read them. Everything here is a pure function.

const units = ["H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s", "ZH/s"];

// scaleOf returns the unit in which a hashrate has one to three digits before the point.
export function scaleOf(hashesPerSecond) {
  let i = 0;
  for (let v = hashesPerSecond; v >= 999.5 && i < units.length - 1; v /= 1000) i++;
  return { factor: 1000 ** i, unit: units[i] };
}

// digits writes a number with three significant digits, without exponent.
export function digits(v) {
  if (v === 0) return "0";
  const places = v >= 99.95 ? 0 : v >= 9.995 ? 1 : 2;
  return v.toFixed(places);
}

// hashrate writes what is not known yet as such: it is not zero.
export function hashrate(v) {
  if (v === null) return "measuring";
  const { factor, unit } = scaleOf(v);
  return `${digits(v / factor)} ${unit}`;
}

export function integer(n) {
  return Math.round(n).toLocaleString("en").replaceAll(",", "\u202f");
}

const letters = ["", "K", "M", "G", "T", "P", "E"];

export function difficulty(v) {
  if (v > 0 && v < 0.01) {
    const exponent = Math.floor(Math.log10(v));
    return `${(v / 10 ** exponent).toFixed(2)} × 10${superscript(exponent)}`;
  }
  let i = 0;
  for (; v >= 999.5 && i < letters.length - 1; v /= 1000) i++;
  return `${digits(v)}${letters[i] && "\u202f" + letters[i]}`;
}

function superscript(n) {
  return String(n).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻");
}

export function percent(ratio) {
  const p = ratio * 100;
  if (p === 0) return "0 %";
  if (p < 0.01) return "< 0.01 %";
  return `${p >= 9.95 ? p.toFixed(0) : p >= 0.995 ? p.toFixed(1) : p.toFixed(2)} %`;
}

// effort writes a part of the work that a block takes, and how many times that work when it is a lot.
export function effort(ratio) {
  return ratio < 10 ? percent(ratio) : `${difficulty(ratio)} ×`;
}

// bitcoin writes satoshi as BTC, exactly.
export function bitcoin(satoshi) {
  const text = String(satoshi).padStart(9, "0");
  const fraction = text.slice(-8).replace(/0+$/, "").padEnd(2, "0");
  return `${text.slice(0, -8)}.${fraction}`;
}

// short leaves out the middle of a long account, as addresses are, so that its worker can be seen.
export function short(name) {
  const dot = name.indexOf(".");
  const account = dot < 0 ? name : name.slice(0, dot);
  return account.length <= 24 ? name : `${account.slice(0, 7)}…${account.slice(-5)}${name.slice(account.length)}`;
}

const steps = [[86400, "d"], [3600, "h"], [60, "min"]];

// duration writes seconds in its largest unit, and the next one where that matters.
export function duration(seconds) {
  for (let i = 0; i < steps.length; i++) {
    const [size, name] = steps[i];
    if (seconds < size) continue;
    const whole = Math.floor(seconds / size);
    const rest = i + 1 < steps.length && whole < 10 ? Math.floor((seconds % size) / steps[i + 1][0]) : 0;
    return rest ? `${whole} ${name} ${rest} ${steps[i + 1][1]}` : `${whole} ${name}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}

export function ago(seconds) {
  return seconds < 3 ? "just now" : `${duration(seconds)} ago`;
}

export function clock(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

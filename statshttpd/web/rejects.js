// What was refused, by reason: parts of all work of the last day.

import { make, set } from "/assets/dom.js";
import { difficulty, percent } from "/assets/format.js";

const sum = (parts) => parts.reduce((all, v) => all + (v ?? 0), 0);

export function showRejects(panel, answer) {
  const stale = sum(answer.stale);
  const all = sum(answer.accepted) + stale + sum(answer.rejected);
  const rows = [["Stale", stale], ...answer.reasons.map((r) => [r.reason, sum(r.difficulty)])]
    .filter(([, work]) => work > 0)
    .sort((a, b) => b[1] - a[1]);
  panel.hidden = all === 0;
  if (all === 0) return;
  const worst = Math.max(...rows.map(([, work]) => work));
  set(panel.querySelector(".count"), percent((stale + sum(answer.rejected)) / all));
  panel.querySelector(".none").hidden = rows.length > 0;
  panel.querySelector("tbody").replaceChildren(...rows.map(([reason, work]) => {
    const bar = make("i");
    bar.style.width = `${(100 * work) / worst}%`;
    return make("tr", "", make("td", "", reason, make("div", "bar", bar)), make("td", "num", percent(work / all)), make("td", "num quiet wider", difficulty(work)));
  }));
}

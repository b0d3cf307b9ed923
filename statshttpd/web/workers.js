// A table of workers, on the pool's page and on a user's.

import { link, make, set } from "/assets/dom.js";
import { ago, hashrate, percent, short } from "/assets/format.js";
import { workerPage } from "/assets/paths.js";

export function createWorker(w) {
  const dot = make("span", "dot", make("span", "unseen"));
  const text = make("span", "who", link(workerPage(w), "name"), make("span", "agent"));
  return make("tr", "", make("td", "", make("div", "worker", dot, text)),
    make("td", "num strong"), make("td", "num wide"), make("td", "num"), make("td", "num quiet wider"));
}

// fillWorker shows a worker in its row, with its user where the table is of many.
export function fillWorker(row, w, now, many) {
  const [name, rate5m, rate1h, rejects, last] = row.cells;
  const worker = w.worker || w.worker_id;
  const title = many ? `${w.user || w.user_id}.${worker}` : worker;
  row.classList.toggle("off", !w.online);
  const [dot, text] = name.firstElementChild.children;
  dot.title = w.online ? "online" : "offline";
  set(dot.firstElementChild, w.online ? "online" : "offline");
  set(text.firstElementChild, many ? short(title) : title);
  text.firstElementChild.title = title;
  set(text.lastElementChild, (w.agent || "unknown software") + (w.through ? ` · proxy ${w.through.address || w.through.session}` : ""));
  const rate = (v) => (v === null && !w.online && !w.waiting ? "–" : hashrate(v));
  set(rate5m, rate(w.hashrate["5m"]));
  set(rate1h, rate(w.hashrate["1h"]));
  set(rejects, percent(w.shares_1h.reject_ratio));
  rejects.classList.toggle("bad", w.shares_1h.reject_ratio > 0.05);
  set(last, w.last_share_at ? ago((now - Date.parse(w.last_share_at)) / 1000) : "none yet");
}

// sortable makes the heads of a table change view.sort and says it by an arrow; figures begin with the largest.
export function sortable(table, view, onChange) {
  const buttons = [...table.querySelectorAll("[data-sort]")];
  const mark = () => {
    for (const button of buttons) {
      const on = view.sort.replace("-", "") === button.dataset.sort;
      if (on) button.parentElement.setAttribute("aria-sort", view.sort.startsWith("-") ? "descending" : "ascending");
      else button.parentElement.removeAttribute("aria-sort");
    }
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const by = button.dataset.sort;
      const first = by === "name" ? by : `-${by}`;
      view.sort = view.sort === first ? (by === "name" ? `-${by}` : by) : first;
      mark();
      onChange();
    });
  }
  mark();
}

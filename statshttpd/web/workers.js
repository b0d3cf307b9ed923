// A table of workers, on the pool's page and on a user's.

import { choice, link, make, named, set, since, typed } from "/assets/dom.js";
import { Question } from "/assets/feed.js";
import { hashrate, percent, short, integer } from "/assets/format.js";
import { List } from "/assets/list.js";
import { address, ask, workerPage } from "/assets/paths.js";
import { t } from "/assets/text.js";

const every = 10_000; // ms between two questions
const high = 0.05; // a part of shares refused that is worth a look

// showRatio shows which part of the shares was refused.
export function showRatio(cell, ratio) {
  set(cell, percent(ratio));
  cell.classList.toggle("bad", ratio > high);
}

const columns = [
  { text: "column.worker", sort: "name" },
  { text: "column.hashrate", sort: "hashrate_5m", class: "num" },
  { text: "column.hour", sort: "hashrate_1h", class: "num wide" },
  { text: "column.rejects", sort: "reject_ratio", class: "num" },
  { text: "column.last", sort: "last_share", class: "num wider" },
];

export class Workers {
  #list;
  #many; // of many users
  #view;
  #user = "";
  #states;
  #filter;
  #csv = make("a", { class: "csv", download: "download" }, t("csv"));

  // The table of a user, who is named later, has silent machines first; that of all has what works.
  constructor(section, { many, heading }) {
    this.#many = many;
    this.#view = { sort: "-hashrate_5m", q: "", state: many ? "active" : "all", limit: 25, offset: 0 };
    const change = () => this.question.again();
    this.#states = choice(t("workers.which"), [...(many ? ["active"] : []), "all", "silent", "online"].map((s) => [s, t(`workers.${s}`)]), this.#view.state, (state) => {
      Object.assign(this.#view, { state, offset: 0 });
      change();
    });
    this.#filter = make("input", {
      type: "search", placeholder: t("workers.filter"), "aria-label": t("workers.filter"), maxlength: "64", autocomplete: "off", spellcheck: "false",
    });
    typed(this.#filter, (text) => this.filter(text));
    this.#list = new List(section, {
      title: many ? "workers.title" : "machines.title", heading, columns, view: this.#view, onChange: change,
      tools: [this.#states.group, this.#filter, this.#csv],
    });
    this.question = new Question(every, (signal) => ask("workers", this.#asked(), signal), (answer) => this.#show(answer));
  }

  #asked() {
    const { sort, q, state, limit, offset } = this.#view;
    return { sort, state, limit, offset, ...(q && { q }), ...(this.#user && { user: this.#user }), ...(!this.#many && state === "all" && { first: "silent" }) };
  }

  // of has the table be that of a user.
  of(user) {
    if (user === this.#user) return;
    this.#user = user;
    Object.assign(this.#view, { q: "", state: "all", offset: 0 });
    this.#filter.value = "";
    this.#states.press("all");
    this.#list.clear();
    this.question.anew();
  }

  // filter shows those whose names contain a text, whatever they are doing.
  filter(text) {
    this.#filter.value = text;
    Object.assign(this.#view, { q: text, offset: 0, ...(text && { state: "all" }) });
    this.#states.press(this.#view.state);
    this.question.again();
  }

  #show(answer) {
    const { q, state } = this.#view;
    this.#csv.href = address("workers", { ...this.#asked(), limit: 1000, offset: 0, format: "csv" });
    this.#list.count(integer(answer.total));
    const none = q ? t("workers.unmatched", { text: q }) : state === "silent" ? t("workers.no_silent") : t("workers.none");
    this.#list.fill(answer.workers, (w) => `${w.user_id}/${w.worker_id}`, createWorker, (row, w) => fillWorker(row, w, this.#many), none, answer);
  }
}

function createWorker(w) {
  const dot = make("span", "dot", make("span", "unseen"));
  const text = make("span", "who", link(workerPage(w), "name"), make("span", "agent"));
  text.firstElementChild.translate = false;
  return make("tr", "", make("td", "", make("div", "worker", dot, text)),
    make("td", "num strong"), make("td", "num wide"), make("td", "num"), make("td", "num quiet wider", make("time", "")));
}

// fillWorker shows a worker in its row, with its user where the table is of many.
function fillWorker(row, w, many) {
  const [name, rate5m, rate1h, rejects, last] = row.cells;
  const worker = w.worker || w.worker_id;
  const title = many ? `${w.user || w.user_id}.${worker}` : worker;
  const state = w.online ? "online" : w.waiting ? "waiting" : "silent";
  row.dataset.state = state;
  const [dot, text] = name.firstElementChild.children;
  dot.title = t(`state.${state}`);
  set(dot.firstElementChild, t(`state.${state}`));
  set(text.firstElementChild, many ? short(title) : title);
  text.firstElementChild.title = title;
  showAgent(text.lastElementChild, w);
  const rate = (v) => (v === null && !w.online && !w.waiting ? "–" : hashrate(v));
  set(rate5m, rate(w.hashrate["5m"]));
  set(rate1h, rate(w.hashrate["1h"]));
  showRatio(rejects, w.shares_1h.reject_ratio);
  showLast(last, w.last_share_at);
}

// showLast shows how long ago the last share was.
export function showLast(cell, time) {
  if (time) {
    const el = cell.querySelector("time") ?? make("time", "");
    el.dataset.age = "-";
    if (!el.parentElement) cell.replaceChildren(el);
    since(el, time);
  } else {
    set(cell, t("none_yet"));
  }
}

function showAgent(el, w) {
  const proxy = w.through ? t("workers.proxy", { name: w.through.address || w.through.session }) : "";
  const said = `${w.agent}\n${proxy}`;
  if (el.dataset.said === said) return;
  el.dataset.said = said;
  el.replaceChildren(w.agent ? named("span", "", w.agent) : t("agent.unknown"), proxy && ` · ${proxy}`);
}

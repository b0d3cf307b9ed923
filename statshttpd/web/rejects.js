// What was refused in the last day, by reason, as parts of all work.

import { fillBar } from "/assets/cards.js";
import { make, named, set } from "/assets/dom.js";
import { Question } from "/assets/feed.js";
import { difficulty, percent } from "/assets/format.js";
import { List } from "/assets/list.js";
import { ask } from "/assets/paths.js";
import { has, t } from "/assets/text.js";

const every = 30_000; // ms between two questions
const sum = (parts) => parts.reduce((all, v) => all + (v ?? 0), 0);

export class Rejects {
  #section;
  #list;
  #path = "pool";

  constructor(section, heading) {
    this.#section = section;
    section.hidden = true;
    this.#list = new List(section, {
      title: "rejects.title", heading,
      columns: [{ text: "column.reason" }, { text: "column.of_work", class: "num" }, { text: "column.difficulty", class: "num wider" }],
    });
    this.question = new Question(every, (signal) => ask(`${this.#path}/rejects`, { step: "hour", limit: 24 }, signal), (answer) => this.#show(answer));
  }

  // of has it be of a user or a worker.
  of(path) {
    if (path === this.#path) return;
    this.#path = path;
    this.#section.hidden = true;
    this.question.anew();
  }

  #show(answer) {
    const stale = sum(answer.stale);
    const all = sum(answer.accepted) + stale + sum(answer.rejected);
    const rows = [{ status: "stale", work: stale }, ...answer.reasons.map((r) => ({ ...r, work: sum(r.difficulty) }))]
      .filter(({ work }) => work > 0)
      .sort((a, b) => b.work - a.work);
    this.#section.hidden = all === 0;
    if (all === 0) return;
    const worst = rows[0]?.work;
    this.#list.count(percent((stale + sum(answer.rejected)) / all));
    const create = ({ status, reason }) => {
      const key = `reason.${status}`;
      return make("tr", "", make("td", "", has(key) ? t(key) : named("span", "", reason), make("div", "bar", make("i", ""))), make("td", "num"), make("td", "num quiet wider"));
    };
    this.#list.fill(rows, ({ status }) => String(status), create, (row, { work }) => {
      fillBar(row.querySelector(".bar"), work / worst);
      set(row.cells[1], percent(work / all));
      set(row.cells[2], difficulty(work));
    }, t("rejects.none"));
  }
}

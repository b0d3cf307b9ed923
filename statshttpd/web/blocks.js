// Blocks: those of this chain, those of chains that are mined along, and the rounds that they ended.

import { fillBar } from "/assets/cards.js";
import { aged, announce, copyable, link, make, named, outside, set, since } from "/assets/dom.js";
import { Question } from "/assets/feed.js";
import { bitcoin, difficulty, duration, effort, integer, short } from "/assets/format.js";
import { List, row } from "/assets/list.js";
import { ask, blockPage, finderPage } from "/assets/paths.js";
import { t } from "/assets/text.js";

const every = 60_000; // ms between two questions; the pool says at once when blocks change

function hashCell(chain, block) {
  const text = `${block.hash.slice(0, 6)}…${block.hash.slice(-10)}`;
  const page = blockPage(chain, block);
  const hash = named("code", "hash", text, block.hash);
  const shown = page ? outside(page, "hash-link", hash) : hash;
  if (page) shown.setAttribute("aria-label", t("block.explorer", { hash: text }));
  return make("span", "pair", shown, copyable(block.hash, t("block.copy", { hash: text })));
}

function showState(badge, { state, confirmations }) {
  badge.dataset.state = state;
  badge.title = t(`block.is.${state}`);
  set(badge, state === "accepted" && confirmations > 0 ? t("block.confirmations", { n: confirmations }) : t(`block.${state}`));
}

export class Blocks {
  #list;
  #view = { limit: 6, offset: 0 };
  #chain = "";
  question;
  #newest = null; // hash of the newest block seen, to tell news from history

  constructor(section) {
    this.#list = new List(section, {
      title: "blocks.title", view: this.#view, onChange: () => this.question.again(),
      columns: [
        { text: "column.height" }, { text: "column.state" }, { text: "column.found" }, { text: "column.finder", class: "wide" },
        { text: "column.hash", class: "widest" }, { text: "column.effort", class: "num wider" }, { text: "column.reward", class: "num" },
      ],
      tools: [make("a", { class: "csv", href: "/api/v1/blocks?limit=500&format=csv", download: "download" }, t("csv"))],
    });
    this.question = new Question(every, (signal) => ask("blocks", this.#view, signal), (answer) => this.#show(answer), () => this.#list.say(t("blocks.away")));
  }

  // on names the chain.
  on(chain) {
    this.#chain = chain;
  }

  #show(answer) {
    const newest = this.#view.offset === 0 ? answer.blocks[0] : undefined;
    const fresh = this.#newest !== null && newest && newest.hash !== this.#newest;
    if (fresh) announce(t("block.news", { height: newest.height, finder: newest.finder }));
    if (this.#view.offset === 0) this.#newest = newest?.hash ?? "";
    const before = this.#list.keys();
    this.#list.fill(answer.blocks, (b) => b.hash, (b) => this.#create(b), (tr, b) => {
      showState(tr.cells[1].firstElementChild, b);
      since(tr.cells[2].firstElementChild, b.time);
      set(tr.cells[5], b.effort === null ? "–" : effort(b.effort));
      tr.cells[5].classList.toggle("lucky", b.effort !== null && b.effort <= 1);
      if (fresh && !before.has(b.hash)) tr.classList.add("fresh");
    }, t("blocks.none"), answer);
  }

  #create(b) {
    const finder = link(finderPage(b.finder), "finder", short(b.finder));
    finder.title = b.finder;
    finder.translate = false;
    const page = blockPage(this.#chain, b);
    const height = page ? outside(page, "", integer(b.height)) : integer(b.height);
    if (page) height.setAttribute("aria-label", t("block.explorer", { hash: integer(b.height) }));
    return make("tr", "", make("td", "strong", height), make("td", "", make("span", "badge")), make("td", "quiet", make("time", { "data-age": "-" })),
      make("td", "wide", finder, ...(b.sub_pool ? [" · ", named("span", "quiet", b.sub_pool)] : [])),
      make("td", "widest", hashCell(this.#chain, b)), make("td", "num wider"),
      make("td", "num", `${bitcoin(b.reward)} `, make("span", "quiet wider", t("unit.coin"))));
  }
}

export class MergedBlocks {
  #section;
  #list;
  #view = { limit: 6, offset: 0 };

  constructor(section) {
    this.#section = section;
    section.hidden = true;
    this.#list = new List(section, {
      title: "merged.title", view: this.#view, onChange: () => this.question.again(),
      columns: [{ text: "column.chain" }, { text: "column.state" }, { text: "column.found" }, { text: "column.hash", class: "wide" }],
      tools: [make("a", { class: "csv", href: "/api/v1/merged-blocks?limit=500&format=csv", download: "download" }, t("csv"))],
    });
    this.question = new Question(every, (signal) => ask("merged-blocks", this.#view, signal), (answer) => this.#show(answer));
  }

  #show(answer) {
    this.#section.hidden = answer.total === 0;
    const create = (b) => make("tr", "", make("td", "strong", named("span", "", b.chain)), make("td", "", make("span", "badge")),
      make("td", "quiet", aged(b.time)), make("td", "wide", hashCell(b.chain, b)));
    this.#list.fill(answer.blocks, (b) => b.hash, create, (tr, b) => showState(tr.cells[1].firstElementChild, b), "", answer);
  }
}

export class Rounds {
  #section;
  #list;
  #luck = make("p", "sub");

  constructor(section) {
    this.#section = section;
    section.hidden = true;
    this.#list = new List(section, {
      title: "rounds.title", tools: [this.#luck],
      columns: [{ text: "column.block" }, { text: "column.took" }, { text: "column.work", class: "num wide" }, { text: "column.effort" }],
    });
    this.question = new Question(every, (signal) => ask("rounds", { limit: 6 }, signal), (answer) => this.#show(answer));
  }

  #show(answer) {
    this.#section.hidden = answer.total === 0;
    const luck = answer.luck.filter((l, i) => l.luck !== null && (i === 0 || l.rounds <= answer.total));
    set(this.#luck, luck.length === 0 ? "" : t("rounds.luck", { parts: luck.map((l) => t("rounds.last", { n: l.rounds, luck: effort(l.luck) })).join(" · ") }));
    const create = () => {
      const tr = row("strong", "quiet", "num quiet wide", "");
      tr.cells[3].append(make("div", "effort", make("div", "bar", make("i", "")), make("span", "num")));
      return tr;
    };
    this.#list.fill(answer.rounds, (r) => r.hash, create, (tr, r) => {
      const [height, took, work, spent] = tr.cells;
      set(height, integer(r.height));
      set(took, r.start ? duration((Date.parse(r.end) - Date.parse(r.start)) / 1000) : t("rounds.first"));
      set(work, r.work === null ? "–" : difficulty(r.work));
      const bar = spent.querySelector(".bar");
      fillBar(bar, (r.effort ?? 0) / 2, r.effort > 1); // half of it is as much as a block takes on average
      set(spent.querySelector(".num"), r.effort === null ? "–" : effort(r.effort));
    }, "");
  }
}

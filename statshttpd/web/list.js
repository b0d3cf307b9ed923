// A panel with a table: its title, heads that sort, what it says when nothing is in it, and its pages.

import { button, make, reconcile, set } from "/assets/dom.js";
import { t } from "/assets/text.js";

export class List {
  #section;
  #count = make("span", "count");
  #table;
  #body = make("tbody", "");
  #none = make("p", "none");
  #pager = make("p", { class: "pager", hidden: "hidden" });
  #range = make("span", "");
  #turns;

  // columns have a text's key, a class and, where one can sort by it, what the API calls it. view has what is asked for:
  // sort, limit and offset; onChange is called when that changes.
  constructor(section, { title, heading = "h2", columns, tools = [], view = {}, onChange }) {
    this.#section = section;
    section.classList.add("panel", "list");
    const name = make(heading, { id: `${section.id}-title` }, t(title), " ", this.#count);
    section.setAttribute("aria-labelledby", name.id);
    const head = columns.map(({ text, class: className = "", sort }) => {
      const words = [t(text), ...(sort === "hashrate_5m" ? [make("span", "wide", t("column.hashrate.span"))] : [])];
      return make("th", { scope: "col", class: className }, ...(sort && onChange ? [button({ "data-sort": sort }, ...words)] : words));
    });
    this.#table = make("table", "", make("thead", "", make("tr", "", ...head)), this.#body);
    this.#turns = [-1, 1].map((by) => {
      const turn = button({ "aria-label": t(by < 0 ? "page.before" : "page.next"), class: by < 0 ? "before" : "next" });
      turn.addEventListener("click", () => {
        view.offset = Math.max(0, view.offset + by * view.limit);
        onChange();
      });
      return turn;
    });
    this.#pager.append(this.#turns[0], this.#range, this.#turns[1]);
    section.append(make("div", "list-head", name, ...(tools.length ? [make("div", "tools", ...tools)] : [])),
      make("div", { class: "scroll" }, this.#table), this.#none, this.#pager);
    if (onChange) this.#sortBy(view, onChange);
  }

  // #sortBy has heads change view.sort and say it by an arrow; figures begin with the largest.
  #sortBy(view, onChange) {
    const buttons = [...this.#table.querySelectorAll("[data-sort]")];
    const mark = () => {
      for (const { dataset, parentElement } of buttons) {
        if (view.sort.replace("-", "") === dataset.sort) parentElement.setAttribute("aria-sort", view.sort.startsWith("-") ? "descending" : "ascending");
        else parentElement.removeAttribute("aria-sort");
      }
    };
    for (const { dataset } of buttons) {
      const first = dataset.sort === "name" ? "name" : `-${dataset.sort}`;
      const second = dataset.sort === "name" ? "-name" : dataset.sort;
      this.#table.querySelector(`[data-sort="${dataset.sort}"]`).addEventListener("click", () => {
        view.sort = view.sort === first ? second : first;
        view.offset = 0;
        mark();
        onChange();
      });
    }
    mark();
  }

  count(text) {
    set(this.#count, text);
  }

  clear() {
    this.#body.replaceChildren();
  }

  keys() {
    return new Set([...this.#body.rows].map((row) => row.dataset.key));
  }

  // fill shows items in rows, or the text none; more says which part of how many they are.
  fill(items, keyOf, create, update, none, more) {
    reconcile(this.#body, items, keyOf, create, update);
    this.say(items.length === 0 ? none : "");
    this.#table.hidden = items.length === 0;
    this.#pager.hidden = !more || more.total <= more.limit && more.offset === 0;
    if (!more) return;
    set(this.#range, t("page.range", { from: Math.min(more.offset + 1, more.total), to: more.offset + items.length, total: more.total }));
    this.#turns[0].disabled = more.offset === 0;
    this.#turns[1].disabled = more.offset + items.length >= more.total;
  }

  say(text) {
    set(this.#none, text);
    this.#none.hidden = text === "";
  }
}

// row is a row of a table with cells of these classes.
export function row(...classes) {
  return make("tr", "", ...classes.map((name) => make("td", name)));
}

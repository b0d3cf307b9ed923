// Figures in a row.

import { make, set } from "/assets/dom.js";
import { t } from "/assets/text.js";

export class Cards {
  #cards = {};

  constructor(section, names, heading = "h2") {
    for (const name of names) {
      const label = make(heading, "label", t(`card.${name}`));
      const figure = make("p", "figure", "–");
      const bar = make("div", { class: "bar", "aria-hidden": "true", hidden: "hidden" }, make("i", ""));
      const sub = make("p", "sub");
      this.#cards[name] = { label, figure, bar, sub, card: make("article", "panel card", label, figure, bar, sub) };
      section.append(this.#cards[name].card);
    }
  }

  // show shows a figure and what is to be said of it, as bad where it is; part is how far a bar goes.
  show(name, figure, sub = "", { bad = false, part } = {}) {
    const card = this.#cards[name];
    set(card.figure, figure);
    set(card.sub, sub);
    card.sub.classList.toggle("bad", bad);
    card.bar.hidden = part === undefined;
    fillBar(card.bar, part ?? 0, (part ?? 0) > 1);
  }

  only(names) {
    for (const [name, { card }] of Object.entries(this.#cards)) card.hidden = !names.includes(name);
  }
}

// fillBar has a bar go as far as a part of its length, in another colour when that is too far.
export function fillBar(bar, part, over = false) {
  bar.firstElementChild.style.width = `${Math.min(100, part * 100)}%`;
  bar.firstElementChild.classList.toggle("over", over);
}

// What every page is made with. Names come from miners and are hostile: they reach the page as text only.

import { integer } from "/assets/format.js";

export const $ = (id) => document.getElementById(id);

// set changes the text of el only where it differs, so that selections survive.
export function set(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

export function make(tag, className, ...children) {
  const el = document.createElement(tag);
  if (className) el.className = className;
  el.append(...children);
  return el;
}

// link is an anchor to a page of this site.
export function link(href, className, ...children) {
  const el = make("a", className, ...children);
  el.href = href;
  return el;
}

export function plural(n, one, many = `${one}s`) {
  return `${integer(n)} ${n === 1 ? one : many}`;
}

export function announce(text) {
  $("news").textContent = text;
}

// reconcile makes the rows of a table body those of items, keeping rows, focus and selection of items that stay.
export function reconcile(body, items, keyOf, create, update) {
  const rows = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  items.forEach((item, i) => {
    const key = keyOf(item);
    let row = rows.get(key);
    if (!row) {
      row = create(item);
      row.dataset.key = key;
    }
    rows.delete(key);
    update(row, item);
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] ?? null);
  });
  for (const row of rows.values()) row.remove();
}

// figures fills a list of terms: pairs of a term and its text; those without are left out.
export function figures(dl, pairs) {
  const told = pairs.filter(([, value]) => value);
  const said = JSON.stringify(told);
  if (dl.dataset.said === said) return; // selections survive
  dl.dataset.said = said;
  dl.replaceChildren(...told.map(([term, value]) => make("div", "", make("dt", "", term), make("dd", "", value))));
}

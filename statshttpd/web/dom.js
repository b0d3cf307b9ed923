// What every page is made with. Names come from miners and are hostile: they reach the page as text only.

import { ago, moment } from "/assets/format.js";
import { t } from "/assets/text.js";

export const $ = (id) => document.getElementById(id);

// set changes the text of el only where it differs, so that selections survive.
export function set(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

// make is a new element with attributes, or with just a class.
export function make(tag, attributes, ...children) {
  const el = document.createElement(tag);
  const all = typeof attributes === "string" ? { class: attributes } : attributes;
  for (const [name, value] of Object.entries(all)) if (value !== "") el.setAttribute(name, value);
  el.append(...children);
  return el;
}

export function button(attributes, ...children) {
  return make("button", { type: "button", ...attributes }, ...children);
}

// named is an element whose text nobody translates: a name, a hash or an address.
export function named(tag, className, text, title = "") {
  return make(tag, { class: className, translate: "no", title }, text);
}

// link is an anchor to a page of this site.
export function link(href, className, ...children) {
  return make("a", { class: className, href }, ...children);
}

// outside is an anchor to a page of others, who are not told from where one comes.
export function outside(href, className, ...children) {
  return make("a", { class: className, href, rel: "noopener noreferrer", target: "_blank" }, ...children);
}

// copyable is a button that copies a text.
export function copyable(text, label) {
  return button({ class: "copy", "data-copy": text, "aria-label": label });
}

export function announce(text) {
  $("news").textContent = text;
}

// choice is a row of buttons of which one is pressed: pairs of a name and a text.
export function choice(label, pairs, pressed, onChange) {
  const buttons = pairs.map(([name, text]) => button({ "data-name": name, "aria-pressed": String(name === pressed) }, text));
  const group = make("div", { class: "ranges", role: "group", "aria-label": label }, ...buttons);
  const press = (name) => {
    for (const b of buttons) b.setAttribute("aria-pressed", String(b.dataset.name === name));
  };
  group.addEventListener("click", (event) => {
    const name = event.target.closest("button")?.dataset.name;
    if (!name) return;
    press(name);
    onChange(name);
  });
  return { group, press };
}

// typed calls onChange with what is typed into a field, when that pauses.
export function typed(field, onChange) {
  let timer = 0;
  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => onChange(field.value.trim()), 250);
  });
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

// fresh tells whether what el shows is not what is to be shown, and remembers it: selections and focus survive.
export function fresh(el, what) {
  const said = JSON.stringify(what);
  if (el.dataset.said === said) return false;
  el.dataset.said = said;
  return true;
}

// figures fills a list of terms: pairs of a term's text and an element or a text; those without are left out.
export function figures(dl, pairs) {
  const told = pairs.filter(([, value]) => value);
  if (!fresh(dl, told.map(([key, value]) => [key, value.querySelector?.("time")?.dateTime ?? value.textContent ?? value]))) return;
  dl.replaceChildren(...told.map(([key, value]) => make("div", "", make("dt", "", t(key)), make("dd", "", value))));
}

// --- how long ago things were ---

let now = Date.now(); // by the pool's clock

export const age = (time) => ago((now - Date.parse(time)) / 1000);

// aged is an element that says how long ago a time was.
export const aged = (time) => since(make("time", { "data-age": "-" }), time);

export function since(el, time) {
  if (el.dateTime !== time) {
    el.dateTime = time;
    el.title = moment(time);
  }
  set(el, age(el.dateTime));
  return el;
}

// advance has all of them grow older.
export function advance(time) {
  now = Date.parse(time);
  for (const el of document.querySelectorAll("[data-age]")) set(el, age(el.dateTime));
}

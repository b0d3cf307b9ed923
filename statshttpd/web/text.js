// The language of the page, and its texts, which are all in one file a language.

export const languages = { en: { short: "EN", name: "English" }, zh: { short: "中文", name: "简体中文" } };
const tags = { en: "en", zh: "zh-Hans" };
const kept = "language"; // in the browser's storage

function chosen() {
  try {
    return localStorage.getItem(kept);
  } catch {
    return null; // storage may be forbidden
  }
}

function best() {
  const wanted = [chosen() ?? "", ...navigator.languages].map((tag) => tag.split("-")[0].toLowerCase());
  return wanted.find((name) => name in languages) ?? "en";
}

export const language = best();
export const tag = tags[language];

const { default: messages } = await import(`/assets/messages.${language}.js`);

// keep has the pages speak a language from now on.
export function keep(name) {
  try {
    localStorage.setItem(kept, name);
  } catch {
    // for this page only, then: it is the one that cannot be kept
  }
  location.reload();
}

const plurals = new Intl.PluralRules(tag);
const whole = new Intl.NumberFormat(tag, { maximumFractionDigits: 0 });

// t is a text with values at its {places}; one that has several forms takes that for the number n.
export function t(key, values = {}) {
  let text = messages[key] ?? key;
  if (typeof text === "object") text = text[plurals.select(values.n)] ?? text.other;
  return text.replace(/\{(\w+)\}/g, (_, name) => (typeof values[name] === "number" ? whole.format(values[name]) : values[name]));
}

// has tells whether there is such a text: there is none for a reason that is newer than this page.
export const has = (key) => key in messages;

// own is an operator's text in the language of the page.
export const own = (texts) => texts[language];

// translate gives elements the texts that they name by data-text, and attributes those that they name by data-…-text.
export function translate(root) {
  for (const el of root.querySelectorAll("[data-text]")) el.textContent = t(el.dataset.text);
  for (const name of ["aria-label", "placeholder", "title", "content"]) {
    for (const el of root.querySelectorAll(`[data-${name}-text]`)) el.setAttribute(name, t(el.getAttribute(`data-${name}-text`)));
  }
}

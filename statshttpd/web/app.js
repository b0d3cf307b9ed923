// The dashboard: shows what the pool says, on the page that the address names. While nobody looks, it does nothing.

import { $, advance, announce, button, make, outside, set } from "/assets/dom.js";
import { clock, duration } from "/assets/format.js";
import { Feed } from "/assets/feed.js";
import { HomePage } from "/assets/home.js";
import { MinerPage } from "/assets/miner.js";
import { ask, here, userPage, workerPage } from "/assets/paths.js";
import settings from "/assets/settings.js";
import { keep, language, languages, own, t, tag, translate } from "/assets/text.js";

dress();
const home = new HomePage();
const miner = new MinerPage();
const feed = new Feed({ told, lost });
let page = here();
let pool = null; // what it said last
let one = null; // what was last said of the page's user or worker; "gone" where nobody knows it

// --- what is the same on every page ---

function dress() {
  document.documentElement.lang = tag;
  translate(document);
  if (settings.name) set($("pool-name"), settings.name);
  document.title = settings.name || "btcpool";
  for (const { text, url } of settings.links) $("links").append(" · ", make("span", { translate: "no" }, outside(url, "", own(text))));
  for (const [to, { short, name }] of Object.entries(languages).filter(([to]) => to !== language)) {
    const change = button({ class: "language", lang: to, translate: "no", title: name }, short);
    change.addEventListener("click", () => keep(to));
    $("languages").append(change);
  }
}

function showFrame() {
  $("chain").hidden = pool.chain === "";
  set($("chain"), pool.chain);
  set($("version"), `btcpool ${pool.version}`);
  set($("uptime"), t("foot.uptime", { time: duration(pool.uptime_seconds) }));
  const fault = pool.away.length > 0 ? away() : pool.starting ? t("link.starting") : workless(pool.network);
  document.body.classList.toggle("old", pool.away.includes("kafka"));
  say(fault ? "wait" : "live", fault || t("link.live"));
}

// away says what does not answer, and how old figures are for that.
function away() {
  if (!pool.away.includes("kafka")) return t("link.no_database");
  return pool.shares_as_of ? t("link.no_kafka", { time: clock(pool.shares_as_of) }) : t("link.no_kafka_ever");
}

// workless says for how long miners have had no new work, if that is long; jobs come every half minute.
function workless(network) {
  if (!network) return t("link.no_work");
  return network.job_age_seconds > 180 ? t("link.old_work", { time: duration(network.job_age_seconds) }) : "";
}

function say(state, text) {
  const before = $("link").dataset.state;
  $("link").dataset.state = state;
  set($("link-text"), text);
  if (state === "lost" && before !== "lost") announce(t("link.news_lost"));
  if (state === "live" && before === "lost") announce(t("link.news_back"));
}

// --- what the pool says ---

function told(kind, answer) {
  if (kind === "pool") pool = answer;
  else if (kind === page.kind) one = answer;
  else if (kind === "gone" && answer.kind === page.kind) one = "gone";
  else return; // a block, which the pool names too
  show();
}

function show() {
  const atHome = page.kind === "home";
  if (!pool || !atHome && !one) return;
  advance(pool.time);
  showFrame();
  $("main").hidden = !atHome;
  $("miner").hidden = atHome;
  if (atHome) home.show(pool);
  else miner.show(page, pool, one === "gone" ? null : one);
}

function lost(seconds) {
  document.body.classList.add("old");
  say("lost", pool ? t("link.lost_since", { time: clock(pool.time), n: Math.round(seconds) }) : t("link.lost", { n: Math.round(seconds) }));
}

function open() {
  close();
  page = here();
  one = null;
  if (!document.hidden) feed.open(page);
}

function close() {
  feed.close();
  home.stop();
  miner.stop();
}

document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
window.addEventListener("hashchange", () => {
  set($("find-none"), "");
  window.scrollTo(0, 0);
  open();
  show();
});
open();

// --- what people do ---

async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = make("textarea", "unseen"); // pages without TLS have no clipboard
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

document.addEventListener("click", async (event) => {
  const copy = event.target.closest(".copy");
  if (!copy) return;
  await copyText(copy.dataset.copy);
  copy.focus();
  copy.classList.add("done");
  announce(t("copy.done"));
  setTimeout(() => copy.classList.remove("done"), 1500);
});

// find opens the page of a user, a user.worker, or the only worker that a text fits; more than one are listed.
async function find(text) {
  const dot = text.indexOf(".");
  const knows = (path) => ask(path).then(() => true, () => false);
  if (await knows(`users/${encodeURIComponent(text)}`)) return userPage({ user: text });
  if (dot > 0) {
    const w = { user: text.slice(0, dot), worker: text.slice(dot + 1) };
    if (await knows(`workers/${encodeURIComponent(w.user)}/${encodeURIComponent(w.worker)}`)) return workerPage(w);
  }
  const some = await ask("workers", { q: text, state: "all", limit: 50 });
  if (some.total === 1) return workerPage(some.workers[0]);
  const owners = new Set(some.workers.map((w) => w.user_id));
  if (some.total > 0 && some.total <= some.workers.length && owners.size === 1) return userPage(some.workers[0]);
  return some.total > 0 ? "#/" : "";
}

$("find").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("find-text").value.trim();
  if (!text) return;
  const found = await find(text).catch(() => null);
  const none = found === null ? t("find.away") : found === "" ? t("find.none", { text }) : "";
  set($("find-none"), none);
  announce(none);
  if (none) return;
  if (found === "#/") home.workers.filter(text);
  else $("find-text").value = "";
  location.hash = found;
  if (found === "#/") $("workers").scrollIntoView();
});
$("find-text").addEventListener("input", () => set($("find-none"), ""));

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part after "#" is for pages
  (page.kind === "home" ? $("main") : $("miner")).focus();
});

// The dashboard: asks the API every few seconds and shows what it says, on the page that the address names.

import { $, announce, make, plural, reconcile, set } from "/assets/dom.js";
import { ago, bitcoin, clock, difficulty, digits, duration, effort, hashrate, integer, percent, scaleOf, short } from "/assets/format.js";
import { MinerPage } from "/assets/miner.js";
import { ask, finderPage, here, question, userPage, workerPage } from "/assets/paths.js";
import { showRejects } from "/assets/rejects.js";
import { Timeline } from "/assets/timeline.js";
import { createWorker, fillWorker, sortable } from "/assets/workers.js";

const interval = 3000; // ms between two questions; doubles up to longest while the pool is away
const longest = 30_000;
const rarely = 30_000; // ms between two questions for what changes slowly

const timeline = new Timeline($("chart"), $("chart-ranges"), () => refresh());
const miner = new MinerPage(() => refresh());
const view = { sort: "-hashrate_5m", filter: "", workers: 50, blocks: 8, rounds: 8 };
let known = null; // hash of the newest block seen, to tell news from history
let wait = interval;
let timer = 0;
let shown = null; // Date of the figures on the page
let running = null; // AbortController of the questions under way
let slow = 0; // when what changes slowly was asked for

// --- asking ---

async function refresh() {
  clearTimeout(timer);
  running?.abort();
  if (document.hidden) return; // visibilitychange asks again
  const { mine, signal } = question();
  running = mine;
  const page = here();
  try {
    const pool = ask("pool", {}, signal);
    const [whole, answers] = await Promise.all([pool, page.kind === "home" ? askHome(signal) : miner.ask(page, signal)]);
    if (mine !== running) return;
    for (const [id, kinds] of [["main", ["home"]], ["miner", ["user", "worker"]]]) $(id).hidden = !kinds.includes(page.kind);
    showFrame(whole);
    if (page.kind === "home") showHome(whole, ...answers);
    else miner.show(page, whole, answers);
    wait = interval;
    document.body.classList.toggle("old", whole.away.includes("kafka"));
    const fault = whole.away.length > 0 || (page.kind === "home" && !answers[1]) ? away(whole) : whole.starting ? "Reading history" : workless(whole.network);
    link(fault ? "wait" : "live", fault || "Live");
  } catch {
    if (mine !== running) return;
    wait = Math.min(wait * 2, longest);
    document.body.classList.add("old");
    link("lost", `Pool does not answer${shown ? `, figures of ${clock(shown)}` : ""}, asking again in ${Math.round(wait / 1000)} s`);
  }
  timer = setTimeout(refresh, wait);
}

function askHome(signal) {
  return Promise.all([
    ask("workers", { sort: view.sort, limit: view.workers, ...(view.filter && { q: view.filter, state: "all" }) }, signal),
    ask("blocks", { limit: view.blocks }, signal).catch((fault) => {
      if (signal.aborted) throw fault;
      return null; // the database is away; the rest still counts
    }),
  ]);
}

// refreshSlow asks for what changes slowly, and leaves what is on the page where the answer does not come.
async function refreshSlow() {
  if (Date.now() - slow < rarely) return;
  slow = Date.now();
  const [rejects, rounds, servers] = await Promise.all([
    ask("pool/rejects", { step: "hour", limit: 24 }).catch(() => null),
    ask("rounds", { limit: view.rounds }).catch(() => null),
    ask("servers").catch(() => null),
  ]);
  if (rejects) showRejects($("rejects"), rejects);
  if (rounds) showRounds(rounds);
  if (servers) showServers(servers);
}

// away says what does not answer, and how old figures are for that.
function away(pool) {
  if (!pool.away.includes("kafka")) return "Database does not answer: blocks and names may be old";
  const of = pool.shares_as_of ? `figures of ${clock(new Date(pool.shares_as_of))}` : "nothing is known yet";
  return `Kafka does not answer: ${of}`;
}

// workless says for how long miners have had no new work, if that is long; jobs come every half minute.
function workless(network) {
  if (!network) return "No work from the node yet";
  return network.job_age_seconds > 180 ? `No new work from the node for ${duration(network.job_age_seconds)}` : "";
}

function link(state, text) {
  const before = $("link").dataset.state;
  $("link").dataset.state = state;
  set($("link-text"), text);
  if (state === "lost" && before !== "lost") announce("The pool does not answer. Figures are no longer current.");
  if (state === "live" && before === "lost") announce("The pool answers again.");
}

// --- showing ---

// showFrame shows what is on every page.
function showFrame(pool) {
  shown = new Date(pool.time);
  $("chain").hidden = pool.chain === "";
  set($("chain"), pool.chain);
  set($("version"), `btcpool ${pool.version}`);
  set($("uptime"), ` · up ${duration(pool.uptime_seconds)}`);
}

function showHome(pool, workers, blocks) {
  const now = Date.parse(pool.time);
  const empty = pool.workers_known === 0 && pool.workers_waiting === 0 && !pool.starting && pool.shares_as_of !== null;
  placeConnect(empty, pool.stratum);
  showHashrate(pool, now);
  showCards(pool, now);
  showWorkers(workers, now, empty);
  $("blocks-away").hidden = blocks !== null;
  if (blocks) showBlocks(blocks, now);
  else $("no-blocks").hidden = true;
  setTimeout(refreshSlow, 0); // after the first figures are there
}

// placeConnect puts the advice first while nobody mines, and last afterwards.
function placeConnect(empty, places) {
  const connect = $("connect");
  document.body.classList.toggle("empty", empty);
  if (empty && connect !== $("main").firstElementChild) $("main").prepend(connect);
  if (!empty && connect !== $("main").lastElementChild) $("main").append(connect);
  set($("connect-title"), empty ? "Connect your first miner" : "Connect a miner");
  $("connect-url").hidden = places.length === 0;
  const known = JSON.stringify(places);
  if ($("places").dataset.places === known) return; // selections survive
  $("places").dataset.places = known;
  $("places").replaceChildren(...places.map(createPlace));
}

function createPlace(place) {
  const url = place.url.replace("://:", `://${location.hostname}:`); // without a host it is the one that serves this page
  const copy = make("button", "copy");
  copy.type = "button";
  copy.dataset.text = url;
  copy.setAttribute("aria-label", `Copy ${url}`);
  const hint = [place.tls && "TLS", place.note].filter(Boolean).join(" · ");
  return make("li", "", make("span", "pair", make("code", "", url), copy), ...(hint ? [make("span", "hint", hint)] : []));
}

// isUnknown tells that the last hour is not counted yet, which is not zero.
function isUnknown(pool) {
  return pool.shares_as_of === null || pool.starting;
}

function showHashrate(pool, now) {
  const unknown = isUnknown(pool);
  const rate = unknown ? null : pool.hashrate["5m"];
  const { factor, unit } = scaleOf(rate ?? 0);
  set($("hashrate"), rate === null ? "–" : digits(rate / factor));
  set($("hashrate-unit"), rate === null ? "" : unit);
  const error = pool.hashrate_error["5m"];
  set($("hashrate-error"), unknown ? "Not known yet" : pool.workers_known === 0 ? (pool.workers_waiting > 0 ? "Waiting for the first share" : "No shares in the last hour") : rate === null ? "Measuring: too few shares yet"
    : error === null ? "No shares in the last 5 minutes" : `5 minute average, ± ${percent(error)}`);
  for (const span of ["1m", "15m", "1h"]) {
    set($(`rate-${span}`), unknown || pool.workers_known === 0 ? "–" : hashrate(pool.hashrate[span]));
  }
  document.title = rate === null ? "btcpool" : `${hashrate(rate)} · btcpool`;
  timeline.show("pool", now, pool.hashrate["1m"], pool.series);
}

function showCards(pool, now) {
  const unknown = isUnknown(pool);
  set($("workers-online"), unknown ? "–" : integer(pool.workers_online));
  const offline = pool.workers_known - pool.workers_online;
  set($("workers-sub"), unknown ? "" : [
    plural(pool.users_online, "user"),
    offline > 0 && `${integer(offline)} gone quiet`,
    pool.workers_waiting > 0 && `${integer(pool.workers_waiting)} without a share yet`,
  ].filter(Boolean).join(", "));

  const shares = pool.shares_1h;
  set($("shares"), unknown ? "–" : integer(shares.accepted.shares));
  set($("shares-sub"), unknown ? "" : `${percent(shares.reject_ratio)} stale or rejected`);
  $("shares-sub").title = [
    `Stale: ${integer(shares.stale.shares)}`,
    ...shares.reasons.map((r) => `${r.reason}: ${integer(r.shares)}`),
  ].join("\n");

  const round = unknown ? null : pool.round;
  set($("effort"), round ? effort(round.effort) : "–");
  $("effort-bar").style.width = `${Math.min(100, (round?.effort ?? 0) * 100)}%`;
  $("effort-bar").classList.toggle("over", (round?.effort ?? 0) > 1);
  set($("effort-sub"), !round ? "of the work a block takes on average"
    : round.since ? `last block ${ago((now - Date.parse(round.since)) / 1000)}` : "since the pool began");

  const counts = pool.blocks;
  set($("blocks-total"), counts ? integer(counts.submitted + counts.accepted + counts.confirmed) : "–");
  set($("blocks-sub"), !counts ? "the database does not answer" : counts.total === 0 ? "none yet" : [
    `${integer(counts.confirmed)} confirmed`,
    counts.orphaned > 0 && `${integer(counts.orphaned)} orphaned`,
    counts.rejected > 0 && `${integer(counts.rejected)} rejected`,
  ].filter(Boolean).join(", "));

  const network = pool.network;
  set($("height"), network ? integer(network.height) : "–");
  set($("network-sub"), !network ? "waiting for a job" : [
    `difficulty ${difficulty(network.difficulty)}`,
    network.hashrate > pool.hashrate["5m"] && hashrate(network.hashrate), // a private chain says nothing about it
  ].filter(Boolean).join(" · "));
}

function showWorkers(answer, now, empty) {
  $("workers").hidden = empty;
  set($("workers-count"), integer(answer.total));
  reconcile($("worker-rows"), answer.workers, (w) => `${w.user_id}/${w.worker_id}`, createWorker, (row, w) => fillWorker(row, w, now, true));
  $("no-workers").hidden = answer.total > 0;
  set($("no-workers"), view.filter ? `No worker matches “${view.filter}”.` : "No worker in the last hour.");
  $("more-workers").hidden = answer.total <= answer.workers.length || view.workers >= 1000;
}

const states = {
  submitted: () => "submitted",
  accepted: (b) => (b.confirmations > 0 ? `${integer(b.confirmations)} conf.` : "accepted"),
  confirmed: () => "confirmed",
  orphaned: () => "orphaned",
  rejected: () => "rejected",
};

function showBlocks(answer, now) {
  const newest = answer.blocks[0];
  const fresh = known !== null && newest && newest.hash !== known;
  if (fresh) announce(`Block ${newest.height} found by ${newest.finder}.`);
  const before = new Set([...$("block-rows").rows].map((row) => row.dataset.key));
  reconcile($("block-rows"), answer.blocks, (b) => b.hash, createBlock, (row, b) => {
    const [, state, found, , , spent] = row.cells;
    const badge = state.firstElementChild;
    badge.dataset.state = b.state;
    badge.title = b.state;
    set(badge, (states[b.state] ?? (() => b.state))(b));
    set(found.firstElementChild, ago((now - Date.parse(b.time)) / 1000));
    set(spent, b.effort === null ? "–" : effort(b.effort));
    if (fresh && !before.has(b.hash)) row.classList.add("fresh");
  });
  known = newest?.hash ?? "";
  $("no-blocks").hidden = answer.total > 0;
  $("blocks").classList.toggle("bare", answer.total === 0);
  $("more-blocks").hidden = answer.total <= answer.blocks.length || view.blocks >= 500;
}

function createBlock(b) {
  const time = make("time");
  time.dateTime = b.time;
  time.title = new Date(b.time).toLocaleString();
  const finder = make("a", "finder", short(b.finder));
  finder.href = finderPage(b.finder);
  finder.title = b.finder;
  const hash = make("code", "hash", `${b.hash.slice(0, 6)}…${b.hash.slice(-10)}`);
  hash.title = b.hash;
  const copy = make("button", "copy");
  copy.type = "button";
  copy.dataset.text = b.hash;
  copy.setAttribute("aria-label", `Copy hash of block ${b.height}`);
  return make("tr", "", make("td", "strong", integer(b.height)), make("td", "", make("span", "badge")), make("td", "quiet", time),
    make("td", "wide", finder), make("td", "widest", make("span", "pair", hash, copy)), make("td", "num wider"),
    make("td", "num", `${bitcoin(b.reward)} `, make("span", "quiet wider", "BTC")));
}

function showRounds(answer) {
  $("rounds").hidden = answer.total === 0;
  const luck = answer.luck.filter((l) => l.luck !== null && l.rounds <= Math.max(answer.total, 10));
  set($("luck"), luck.map((l) => `last ${l.rounds}: ${effort(l.luck)}`).join(" · "));
  reconcile($("round-rows"), answer.rounds, (r) => r.hash, () => make("tr", "", make("td", "strong"), make("td", "quiet"), make("td", "num quiet wide"), make("td", "effort", make("div", "bar", make("i")), make("span", "num"))), (row, r) => {
    const [height, took, work, spent] = row.cells;
    set(height, integer(r.height));
    set(took, r.start ? duration((Date.parse(r.end) - Date.parse(r.start)) / 1000) : "the first");
    set(work, r.work === null ? "–" : difficulty(r.work));
    const bar = spent.firstElementChild.firstElementChild;
    bar.style.width = `${Math.min(100, (r.effort ?? 0) * 50)}%`; // half of it is as much as a block takes on average
    bar.classList.toggle("over", (r.effort ?? 0) > 1);
    set(spent.lastElementChild, r.effort === null ? "–" : effort(r.effort));
  });
}

function showServers(answer) {
  const now = Date.parse(answer.time);
  $("servers").hidden = answer.servers.length === 0;
  reconcile($("server-rows"), answer.servers, (s) => String(s.server), () => make("tr", "", make("td", "strong"), make("td", "num"), make("td", "num"), make("td", "num"), make("td", "num quiet wider")), (row, s) => {
    const [name, rate, workers, rejects, last] = row.cells;
    set(name, `Server ${s.server}`);
    set(rate, hashrate(s.hashrate["5m"]));
    set(workers, integer(s.workers));
    set(rejects, percent(s.shares_1h.reject_ratio));
    rejects.classList.toggle("bad", s.shares_1h.reject_ratio > 0.05);
    set(last, s.last_share_at ? ago((now - Date.parse(s.last_share_at)) / 1000) : "none yet");
  });
}

// --- doing ---

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
  const button = event.target.closest("button");
  if (!button) return;
  if (button.matches(".copy")) {
    await copyText(button.dataset.text);
    button.focus();
    button.classList.add("done");
    announce("Copied.");
    setTimeout(() => button.classList.remove("done"), 1500);
  } else if (button === $("more-workers")) {
    view.workers = Math.min(view.workers * 2, 1000);
    refresh();
  } else if (button === $("more-blocks")) {
    view.blocks = Math.min(view.blocks * 2, 500);
    refresh();
  }
});

sortable($("workers"), view, refresh);

let typing = 0;
$("filter").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    view.filter = event.target.value.trim();
    refresh();
  }, 250);
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
  const page = await find(text).catch(() => "");
  const none = page === "" ? `No miner named “${text}” is known.` : "";
  set($("find-none"), none);
  announce(none);
  if (none) return;
  if (page === "#/") {
    $("filter").value = view.filter = text;
    if (here().kind === "home") refresh();
  } else {
    $("find-text").value = "";
  }
  location.hash = page;
  if (page === "#/") $("workers").scrollIntoView();
});
$("find-text").addEventListener("input", () => set($("find-none"), ""));

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the part after "#" is for pages
  (here().kind === "home" ? $("workers") : $("miner")).focus();
});

window.addEventListener("hashchange", () => {
  set($("find-none"), "");
  window.scrollTo(0, 0);
  refresh();
});
document.addEventListener("visibilitychange", refresh);
refresh();

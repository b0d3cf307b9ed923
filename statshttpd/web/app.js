// The dashboard: asks the API every few seconds and shows what it says. Names come from miners and are hostile: they
// reach the page as text only.

import { Chart } from "/assets/chart.js";
import { ago, bitcoin, clock, difficulty, digits, duration, effort, hashrate, integer, percent, scaleOf, short } from "/assets/format.js";

const interval = 3000; // ms between two questions; doubles up to longest while the pool is away
const longest = 30_000;
const patience = 8000; // ms for one answer

const $ = (id) => document.getElementById(id);
const chart = new Chart($("chart"));
const view = { sort: "-hashrate_5m", filter: "", workers: 50, blocks: 8 };
let known = null; // hash of the newest block seen, to tell news from history
let wait = interval;
let timer = 0;
let shown = null; // Date of the figures on the page
let running = null; // AbortController of the questions under way

// --- asking ---

async function ask(path, parameters, signal) {
  const answer = await fetch(`/api/v1/${path}?${new URLSearchParams(parameters)}`, { signal });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function refresh() {
  clearTimeout(timer);
  running?.abort();
  if (document.hidden) return; // visibilitychange asks again
  const mine = (running = new AbortController());
  const signal = AbortSignal.any([mine.signal, AbortSignal.timeout(patience)]);
  try {
    const [pool, workers, blocks] = await Promise.all([
      ask("pool", {}, signal),
      ask("workers", { sort: view.sort, limit: view.workers, ...(view.filter && { q: view.filter }) }, signal),
      ask("blocks", { limit: view.blocks }, signal).catch((fault) => {
        if (signal.aborted) throw fault;
        return null; // the database is away; the rest still counts
      }),
    ]);
    if (mine !== running) return;
    show(pool, workers, blocks);
    wait = interval;
    document.body.classList.toggle("old", pool.away.includes("kafka"));
    const fault = pool.away.length > 0 || !blocks ? away(pool) : pool.starting ? "Reading history" : workless(pool.network);
    link(fault ? "wait" : "live", fault || "Live");
  } catch {
    if (mine !== running) return;
    wait = Math.min(wait * 2, longest);
    document.body.classList.add("old");
    link("lost", `Pool does not answer${shown ? `, figures of ${clock(shown)}` : ""}, asking again in ${Math.round(wait / 1000)} s`);
  }
  timer = setTimeout(refresh, wait);
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

function announce(text) {
  $("news").textContent = text;
}

// --- showing ---

// set changes the text of el only where it differs, so that selections survive.
function set(el, text) {
  if (el.textContent !== text) el.textContent = text;
}

function make(tag, className, ...children) {
  const el = document.createElement(tag);
  if (className) el.className = className;
  el.append(...children);
  return el;
}

function plural(n, one, many = `${one}s`) {
  return `${integer(n)} ${n === 1 ? one : many}`;
}

function show(pool, workers, blocks) {
  const now = Date.parse(pool.time);
  const empty = pool.workers_known === 0 && pool.workers_waiting === 0 && !pool.starting && pool.shares_as_of !== null;
  $("main").hidden = false;
  placeConnect(empty, pool.stratum);
  showHashrate(pool, now);
  showCards(pool, now);
  showWorkers(workers, now, empty);
  shown = new Date(pool.time);
  $("blocks-away").hidden = blocks !== null;
  if (blocks) showBlocks(blocks, now);
  else $("no-blocks").hidden = true;
  $("chain").hidden = pool.chain === "";
  set($("chain"), pool.chain);
  set($("version"), `btcpool ${pool.version}`);
  set($("uptime"), ` · up ${duration(pool.uptime_seconds)}`);
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
  chart.show(pool.series, now, pool.hashrate["1m"] ?? 0);
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

// reconcile makes the rows of a table body those of items, keeping rows, focus and selection of items that stay.
function reconcile(body, items, keyOf, create, update) {
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

function showWorkers(answer, now, empty) {
  $("workers").hidden = empty;
  set($("workers-count"), integer(answer.total));
  reconcile($("worker-rows"), answer.workers, (w) => `${w.user_id}/${w.worker_id}`, createWorker, (row, w) => {
    const [name, rate5m, rate1h, rejects, last] = row.cells;
    const title = `${w.user || w.user_id}.${w.worker || w.worker_id}`;
    row.classList.toggle("off", !w.online);
    const [dot, text] = name.firstElementChild.children;
    dot.title = w.online ? "online" : "offline";
    set(dot.firstElementChild, w.online ? "online" : "offline");
    set(text.firstElementChild, short(title));
    text.firstElementChild.title = title;
    set(text.lastElementChild, (w.agent || "unknown software") + (w.through ? ` · proxy ${w.through.address || w.through.session}` : ""));
    set(rate5m, hashrate(w.hashrate["5m"]));
    set(rate1h, hashrate(w.hashrate["1h"]));
    set(rejects, percent(w.shares_1h.reject_ratio));
    rejects.classList.toggle("bad", w.shares_1h.reject_ratio > 0.05);
    set(last, w.last_share_at ? ago((now - Date.parse(w.last_share_at)) / 1000) : "none yet");
  });
  $("no-workers").hidden = answer.total > 0;
  set($("no-workers"), view.filter ? `No worker matches “${view.filter}”.` : "No worker in the last hour.");
  $("more-workers").hidden = answer.total <= answer.workers.length || view.workers >= 1000;
}

function createWorker() {
  const dot = make("span", "dot", make("span", "unseen"));
  const text = make("span", "who", make("span", "name"), make("span", "agent"));
  return make("tr", "", make("td", "", make("div", "worker", dot, text)),
    make("td", "num strong"), make("td", "num wide"), make("td", "num"), make("td", "num quiet wider"));
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
    const [, state, found] = row.cells;
    const badge = state.firstElementChild;
    badge.dataset.state = b.state;
    badge.title = b.state;
    set(badge, (states[b.state] ?? (() => b.state))(b));
    set(found.firstElementChild, ago((now - Date.parse(b.time)) / 1000));
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
  const finder = make("span", "finder", short(b.finder));
  finder.title = b.finder;
  const hash = make("code", "hash", `${b.hash.slice(0, 6)}…${b.hash.slice(-10)}`);
  hash.title = b.hash;
  const copy = make("button", "copy");
  copy.type = "button";
  copy.dataset.text = b.hash;
  copy.setAttribute("aria-label", `Copy hash of block ${b.height}`);
  return make("tr", "", make("td", "strong", integer(b.height)), make("td", "", make("span", "badge")), make("td", "quiet", time),
    make("td", "wide", finder), make("td", "widest", make("span", "pair", hash, copy)),
    make("td", "num", `${bitcoin(b.reward)} `, make("span", "quiet wider", "BTC")));
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
  } else if (button.dataset.sort) {
    const by = button.dataset.sort;
    const first = by === "name" ? by : `-${by}`; // figures begin with the largest
    view.sort = view.sort === first ? (by === "name" ? `-${by}` : by) : first;
    showSort();
    refresh();
  } else if (button === $("more-workers")) {
    view.workers = Math.min(view.workers * 2, 1000);
    refresh();
  } else if (button === $("more-blocks")) {
    view.blocks = Math.min(view.blocks * 2, 500);
    refresh();
  }
});

function showSort() {
  for (const button of document.querySelectorAll("[data-sort]")) {
    const on = view.sort.replace("-", "") === button.dataset.sort;
    if (on) button.parentElement.setAttribute("aria-sort", view.sort.startsWith("-") ? "descending" : "ascending");
    else button.parentElement.removeAttribute("aria-sort");
  }
}

let typing = 0;
$("filter").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    view.filter = event.target.value.trim();
    refresh();
  }, 250);
});

document.addEventListener("visibilitychange", refresh);
showSort();
refresh();

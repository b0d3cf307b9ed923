// The page of a user or of a worker.

import { $, figures, link, plural, reconcile, set } from "/assets/dom.js";
import { ago, difficulty, digits, duration, effort, hashrate, integer, percent, scaleOf, short } from "/assets/format.js";
import { address, ask, userPage } from "/assets/paths.js";
import { showRejects } from "/assets/rejects.js";
import { Timeline } from "/assets/timeline.js";
import { createWorker, fillWorker, sortable } from "/assets/workers.js";

const rarely = 30_000; // ms between two questions for what changes slowly
const hashesPerDifficulty = 2 ** 32;

export class MinerPage {
  #timeline;
  #view = { sort: "-hashrate_5m", filter: "", state: "all", limit: 100 };
  #path = "";
  #slow = 0; // when rejects were asked for

  constructor(onChange) {
    this.#timeline = new Timeline($("miner-chart"), $("miner-ranges"), onChange);
    sortable($("machines"), this.#view, onChange);
    const states = [...$("machine-states").querySelectorAll("button")];
    for (const button of states) {
      button.addEventListener("click", () => {
        this.#view.state = button.dataset.state;
        for (const b of states) b.setAttribute("aria-pressed", String(b === button));
        onChange();
      });
    }
    let typing = 0;
    $("machine-filter").addEventListener("input", (event) => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        this.#view.filter = event.target.value.trim();
        onChange();
      }, 250);
    });
    $("more-machines").addEventListener("click", () => {
      this.#view.limit = Math.min(this.#view.limit * 2, 1000);
      onChange();
    });
  }

  // ask asks for the user or worker of the page, which is null where nobody knows it, and for the user's machines.
  ask(page, signal) {
    const one = ask(page.path, {}, signal).catch((fault) => {
      if (fault.status === 404 || fault.status === 400) return null;
      throw fault;
    });
    return Promise.all([one, page.kind === "user" ? this.#askMachines(page, signal) : null]);
  }

  // #askMachines puts the silent ones first where all are asked for.
  async #askMachines({ user }, signal) {
    const { sort, filter, state, limit } = this.#view;
    const list = (state) => ask("workers", { user, state, sort, limit, ...(filter && { q: filter }) }, signal);
    if (state !== "all") return list(state);
    const [silent, all] = await Promise.all([list("silent"), list("all")]);
    const first = new Set(silent.workers.map((w) => w.worker_id));
    return { ...all, workers: [...silent.workers, ...all.workers.filter((w) => !first.has(w.worker_id))].slice(0, limit) };
  }

  show(page, pool, [one, machines]) {
    if (page.path !== this.#path) {
      this.#path = page.path;
      this.#slow = 0;
      $("miner-rejects").hidden = true;
      $("machine-rows").replaceChildren();
    }
    const name = page.kind === "user" ? page.user : page.worker;
    document.title = `${page.kind === "user" ? page.user : `${page.user}.${page.worker}`} · btcpool`;
    this.#showPath(page);
    set($("miner-name"), name);
    set($("miner-kind"), page.kind === "user" ? "User" : "Worker");
    $("miner-unknown").hidden = one !== null;
    for (const part of $("miner").querySelectorAll("[data-known]")) part.hidden = one === null;
    if (!one) {
      $("machines").hidden = $("details").hidden = $("miner-rejects").hidden = true;
      return;
    }
    const now = Date.parse(one.time);
    this.#showHashrate(page, one, now);
    this.#showCards(page, one, pool, now);
    $("machines").hidden = page.kind !== "user";
    $("details").hidden = page.kind !== "worker";
    if (machines) this.#showMachines(page, machines, now);
    else this.#showDetails(one, now);
    this.#showRejects(page);
  }

  #showPath(page) {
    const parts = [link("#/", "", "Pool"), ...(page.kind === "worker" ? [link(userPage({ user: page.user }), "", short(page.user))] : [])];
    const said = parts.map((a) => a.href).join(" ");
    if ($("crumbs").dataset.said === said) return; // focus survives
    $("crumbs").dataset.said = said;
    $("crumbs").replaceChildren(...parts);
  }

  #showHashrate(page, one, now) {
    const online = page.kind === "user" ? one.workers_online > 0 : one.online;
    $("miner-state").dataset.state = online ? "live" : "wait";
    set($("miner-state-text"), online ? "online" : one.waiting ? "waiting for its first share" : "silent");
    const rate = one.hashrate["5m"];
    const { factor, unit } = scaleOf(rate ?? 0);
    set($("miner-hashrate"), rate === null ? "–" : digits(rate / factor));
    set($("miner-hashrate-unit"), rate === null ? "" : unit);
    const error = one.hashrate_error["5m"];
    const measured = (v) => (v === null && !online && !one.waiting ? "–" : hashrate(v));
    set($("miner-hashrate-error"), rate === null && online ? "Measuring: too few shares yet" : error === null ? "No shares in the last 5 minutes" : `5 minute average, ± ${percent(error)}`);
    for (const span of ["15m", "1h"]) set($(`miner-rate-${span}`), measured(one.hashrate[span]));
    set($("miner-rate-1d"), one.hashrate["1d"] === null ? "–" : hashrate(one.hashrate["1d"]));
    this.#timeline.show(page.path, now, one.hashrate["5m"]);
  }

  #showCards(page, one, pool, now) {
    const best = (b) => (b ? difficulty(b.difficulty) : "–");
    const since = (time) => ago((now - Date.parse(time)) / 1000);
    set($("best"), best(one.best_share));
    set($("best-sub"), one.best_share ? since(one.best_share.time) : "none yet");
    set($("best-round"), best(one.round_best_share));
    set($("best-round-sub"), !one.round_best_share ? "none yet" : pool.network
      ? `${effort(one.round_best_share.difficulty / pool.network.difficulty)} of a block` : since(one.round_best_share.time));

    const rate = one.hashrate["1h"] ?? one.hashrate["5m"];
    const known = pool.network && rate > 0;
    set($("odds"), known ? span((pool.network.difficulty * hashesPerDifficulty) / rate) : "–");
    set($("odds-sub"), known ? "on average, alone at this hashrate" : pool.network ? "without hashrate" : "waiting for a job");

    const shares = one.shares_1h;
    set($("miner-shares"), integer(shares.accepted.shares));
    set($("miner-shares-sub"), `${percent(shares.reject_ratio)} stale or rejected`);
    $("miner-shares-sub").classList.toggle("bad", shares.reject_ratio > 0.05);

    set($("last-label"), page.kind === "user" ? "Workers online" : "Last share");
    set($("last"), page.kind === "user" ? integer(one.workers_online) : one.last_share_at ? since(one.last_share_at) : "–");
    set($("last-sub"), page.kind === "user"
      ? one.workers_silent > 0 ? `${integer(one.workers_silent)} silent, of ${integer(one.workers)}` : `of ${integer(one.workers)}`
      : one.first_share_at ? `the first ${since(one.first_share_at)}` : "none yet");
  }

  #showMachines({ user }, answer, now) {
    const view = this.#view;
    set($("machines-count"), integer(answer.total));
    $("machines-csv").href = address("workers", { user, state: view.state, sort: view.sort, limit: 1000, format: "csv", ...(view.filter && { q: view.filter }) });
    reconcile($("machine-rows"), answer.workers, (w) => w.worker_id, createWorker, (row, w) => fillWorker(row, w, now, false));
    $("no-machines").hidden = answer.total > 0;
    set($("no-machines"), view.filter ? `No machine matches “${view.filter}”.` : view.state === "silent" ? "None is silent." : "No machine.");
    $("more-machines").hidden = answer.total <= answer.workers.length || view.limit >= 1000;
  }

  #showDetails(w, now) {
    const moment = (time) => time && `${new Date(time).toLocaleString("en", { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" })} (${ago((now - Date.parse(time)) / 1000)})`;
    figures($("detail-list"), [
      ["Difficulty", w.difficulty === null ? "" : difficulty(w.difficulty)],
      ["Software", w.agent || "unknown"],
      ["Address", w.address],
      ["Connected since", moment(w.connected_since)],
      ["Connections", w.sessions > 0 ? plural(w.sessions, "connection") : ""],
      ["Server", w.server === null ? "" : `Server ${w.server}`],
      ["Farm proxy", w.through ? [w.through.address, `session ${w.through.session}`].filter(Boolean).join(", ") : ""],
      ["First share", moment(w.first_share_at)],
      ["Last share", moment(w.last_share_at)],
    ]);
  }

  async #showRejects(page) {
    if (Date.now() - this.#slow < rarely) return;
    this.#slow = Date.now();
    const answer = await ask(`${page.path}/rejects`, { step: "hour", limit: 24 }).catch(() => null);
    if (answer && page.path === this.#path) showRejects($("miner-rejects"), answer);
  }
}

// span writes a time that may be very long.
function span(seconds) {
  const years = seconds / (365.25 * 86400);
  return years < 2 ? duration(seconds) : `${years < 100_000 ? integer(years) : difficulty(years)} years`;
}

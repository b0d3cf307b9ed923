// The page of a user or of a worker.

import { Cards } from "/assets/cards.js";
import { $, age, aged, figures, fresh, link, make, named, set } from "/assets/dom.js";
import { difficulty, duration, effort, hashrate, integer, moment, percent, short } from "/assets/format.js";
import { Hashrate } from "/assets/hashrate.js";
import { secondsToBlock, userPage } from "/assets/paths.js";
import { Rejects } from "/assets/rejects.js";
import settings from "/assets/settings.js";
import { t } from "/assets/text.js";
import { Workers } from "/assets/workers.js";

const heading = "h3"; // the page's name is an h2

export class MinerPage {
  #hashrate = new Hashrate($("miner-hashrate"), { title: "hashrate.miner", heading });
  #cards = new Cards($("miner-cards"), ["online", "last", "shares", "best_round", "best", "odds"], heading);
  #machines = new Workers($("machines"), { many: false, heading });
  #rejects = new Rejects($("miner-rejects"), heading);

  // show shows a user or a worker, null where nobody knows it.
  show(page, pool, one) {
    const user = page.kind === "user";
    document.title = `${user ? page.user : `${page.user}.${page.worker}`} · ${settings.name || "btcpool"}`;
    this.#showPath(page);
    set($("miner-name"), user ? page.user : page.worker);
    set($("miner-kind"), t(`kind.${page.kind}`));
    $("miner-unknown").hidden = one !== null;
    for (const part of $("miner").querySelectorAll("[data-known]")) part.hidden = one === null;
    $("machines").hidden = !one || !user;
    $("details").hidden = !one || user;
    if (!one) {
      $("miner-rejects").hidden = true;
      return;
    }
    this.#showHashrate(page, one);
    this.#showCards(page, one, pool);
    if (user) {
      this.#machines.of(page.user);
      this.#machines.question.look();
    } else {
      showDetails(one);
    }
    this.#rejects.of(page.path);
    this.#rejects.question.look();
  }

  stop() {
    this.#machines.question.stop();
    this.#rejects.question.stop();
  }

  #showPath(page) {
    const parts = [link("#/", "", t("crumb.pool"))];
    if (page.kind === "worker") parts.push(named("a", "", short(page.user), page.user));
    if (parts[1]) parts[1].href = userPage({ user: page.user });
    if (fresh($("crumbs"), parts.map((a) => a.href))) $("crumbs").replaceChildren(...parts);
  }

  #showHashrate(page, one) {
    const online = page.kind === "user" ? one.workers_online > 0 : one.online;
    $("miner-state").dataset.state = online ? "live" : "wait";
    set($("miner-state-text"), t(`state.${online ? "online" : one.waiting ? "waiting" : "silent"}`));
    const rate = one.hashrate["5m"];
    const error = one.hashrate_error["5m"];
    const note = rate === null && online ? "rate.measuring" : error === null ? "rate.none" : "rate.average";
    this.#hashrate.show(rate, t(note, { error: percent(error ?? 0) }), one.hashrate, (v) => (v === null && !online && !one.waiting ? "–" : hashrate(v)));
    this.#hashrate.draw(page.path, Date.parse(one.time), one.hashrate["5m"]);
  }

  #showCards(page, one, pool) {
    const user = page.kind === "user";
    this.#cards.only([user ? "online" : "last", "shares", "best_round", "best", "odds"]);
    if (user) {
      const silent = one.workers_silent;
      this.#cards.show("online", integer(one.workers_online), silent > 0 ? t("count.silent_of", { n: silent, all: one.workers }) : t("count.of", { n: one.workers }), { bad: silent > 0 });
    } else {
      this.#cards.show("last", one.last_share_at ? age(one.last_share_at) : "–", one.first_share_at ? t("last.first", { age: age(one.first_share_at) }) : t("none_yet"));
    }
    const shares = one.shares_1h;
    this.#cards.show("shares", integer(shares.accepted.shares), t("shares.refused", { part: percent(shares.reject_ratio) }), { bad: shares.reject_ratio > 0.05 });

    const best = one.best_share;
    this.#cards.show("best", best ? difficulty(best.difficulty) : "–", best ? age(best.time) : t("none_yet"));
    const round = one.round_best_share;
    this.#cards.show("best_round", round ? difficulty(round.difficulty) : "–", !round ? t("none_yet")
      : pool.network ? t("best.of_block", { part: effort(round.difficulty / pool.network.difficulty) }) : age(round.time));

    const wait = secondsToBlock(pool, one.hashrate["1h"] ?? one.hashrate["5m"]);
    this.#cards.show("odds", wait === null ? "–" : duration(wait), t(wait !== null ? "odds.alone" : pool.network ? "odds.idle" : "network.waiting"));
  }
}

function showDetails(w) {
  const at = (time) => time && make("span", "", make("time", { datetime: time }, moment(time)), " ", make("span", "quiet", "(", aged(time), ")"));
  figures($("detail-list"), [
    ["detail.difficulty", w.difficulty === null ? "" : difficulty(w.difficulty)],
    ["detail.software", w.agent ? named("span", "", w.agent) : t("agent.unknown")],
    ["detail.address", w.address && named("span", "", w.address)],
    ["detail.since", at(w.connected_since)],
    ["detail.connections", w.sessions > 0 ? integer(w.sessions) : ""],
    ["detail.server", w.server === null ? "" : t("servers.one", { id: String(w.server) })],
    ["detail.proxy", w.through && named("span", "", [w.through.address, w.through.session].filter(Boolean).join(" · "))],
    ["detail.first", at(w.first_share_at)],
    ["detail.last", at(w.last_share_at)],
  ]);
}

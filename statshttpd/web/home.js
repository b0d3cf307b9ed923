// The pool's page.

import { Blocks, MergedBlocks, Rounds } from "/assets/blocks.js";
import { Cards } from "/assets/cards.js";
import { $, age, copyable, fresh, make, named, set } from "/assets/dom.js";
import { Question } from "/assets/feed.js";
import { difficulty, duration, effort, hashrate, integer, percent } from "/assets/format.js";
import { Hashrate } from "/assets/hashrate.js";
import { List, row } from "/assets/list.js";
import { ask, secondsToBlock } from "/assets/paths.js";
import { Rejects } from "/assets/rejects.js";
import settings from "/assets/settings.js";
import { own, t } from "/assets/text.js";
import { showLast, showRatio, Workers } from "/assets/workers.js";

export class HomePage {
  workers = new Workers($("workers"), { many: true });
  #hashrate = new Hashrate($("hashrate"), { title: "hashrate.pool" });
  #cards = new Cards($("pool-cards"), ["online", "shares", "effort", "blocks", "network"]);
  #blocks = new Blocks($("blocks"));
  #rounds = new Rounds($("rounds"));
  #merged = new MergedBlocks($("merged"));
  #servers = new Servers($("servers"));
  #parts = [this.workers, this.#blocks, this.#rounds, this.#merged, new Rejects($("rejects")), this.#servers];

  constructor() {
    set($("welcome"), own(settings.welcome));
    $("welcome").hidden = own(settings.welcome) === "";
    if (settings.user_example) set($("user-example"), settings.user_example);
  }

  // show shows what the pool says of itself, and has the tables ask for theirs.
  show(pool) {
    const empty = pool.workers_known === 0 && pool.workers_waiting === 0 && !pool.starting && pool.shares_as_of !== null;
    placeConnect(empty, pool.stratum);
    $("workers").hidden = empty;
    const unknown = pool.shares_as_of === null || pool.starting; // the last hour is not counted yet, which is not zero
    this.#showHashrate(pool, unknown);
    this.#showCards(pool, unknown);
    this.#blocks.on(pool.chain);
    if (fresh($("blocks"), [pool.blocks, pool.last_block?.hash])) for (const part of [this.#blocks, this.#rounds, this.#merged]) part.question.anew();
    for (const part of this.#parts) part.question.look();
  }

  stop() {
    for (const part of this.#parts) part.question.stop();
  }

  #showHashrate(pool, unknown) {
    const rate = unknown ? null : pool.hashrate["5m"];
    const error = pool.hashrate_error["5m"];
    const note = unknown ? "rate.unknown" : pool.workers_known === 0 ? (pool.workers_waiting > 0 ? "rate.waiting" : "rate.none_hour")
      : rate === null ? "rate.measuring" : error === null ? "rate.none" : "rate.average";
    const idle = unknown || pool.workers_known === 0;
    this.#hashrate.show(rate, t(note, { error: percent(error ?? 0) }), pool.hashrate, (v) => (idle ? "–" : hashrate(v)));
    this.#hashrate.draw("pool", Date.parse(pool.time), pool.hashrate["1m"], pool.series);
    document.title = [rate !== null && hashrate(rate), settings.name || "btcpool"].filter(Boolean).join(" · ");
  }

  #showCards(pool, unknown) {
    const list = (...parts) => parts.filter(Boolean).join(t("list.comma"));
    this.#cards.show("online", unknown ? "–" : integer(pool.workers_online), unknown ? "" : list(
      t("count.users", { n: pool.users_online }),
      pool.workers_silent > 0 && t("count.silent", { n: pool.workers_silent }),
      pool.workers_waiting > 0 && t("count.waiting", { n: pool.workers_waiting }),
    ));
    const shares = pool.shares_1h;
    this.#cards.show("shares", unknown ? "–" : integer(shares.accepted.shares), unknown ? "" : t("shares.refused", { part: percent(shares.reject_ratio) }));

    const round = unknown ? null : pool.round;
    const wait = secondsToBlock(pool, pool.hashrate["1h"] ?? pool.hashrate["5m"]);
    this.#cards.show("effort", round ? effort(round.effort) : "–", list(
      round && (round.since ? t("round.since", { age: age(round.since) }) : t("round.first")),
      !unknown && wait !== null && t("round.block_each", { time: duration(wait) }),
    ), { part: round?.effort ?? 0 });

    const counts = pool.blocks;
    this.#cards.show("blocks", counts ? integer(counts.submitted + counts.accepted + counts.confirmed) : "–", !counts ? t("blocks.unknown") : counts.total === 0 ? t("none_yet") : list(
      t("count.confirmed", { n: counts.confirmed }),
      counts.orphaned > 0 && t("count.orphaned", { n: counts.orphaned }),
      counts.rejected > 0 && t("count.rejected", { n: counts.rejected }),
    ));

    const network = pool.network;
    this.#cards.show("network", network ? integer(network.height) : "–", !network ? t("network.waiting") : list(
      t("network.difficulty", { difficulty: difficulty(network.difficulty) }),
      network.hashrate > pool.hashrate["5m"] && hashrate(network.hashrate), // a private chain says nothing about it
    ));
  }
}

// placeConnect puts the advice first while nobody mines, and behind the pool's figures afterwards.
function placeConnect(empty, places) {
  const connect = $("connect");
  document.body.classList.toggle("empty", empty);
  const before = empty ? $("welcome") : $("pool-cards");
  if (before.nextElementSibling !== connect) before.after(connect);
  set($("connect-title"), t(empty ? "connect.first" : "connect.title"));
  $("connect-url").hidden = places.length === 0;
  if (fresh($("places"), places)) $("places").replaceChildren(...places.map(createPlace));
}

function createPlace(place) {
  const url = place.url.replace("://:", `://${location.hostname}:`); // without a host it is the one that serves this page
  const hint = [place.tls && named("span", "badge", "TLS"), place.note && named("span", "hint", place.note)].filter(Boolean);
  return make("li", "", make("span", "pair", named("code", "", url), copyable(url, t("copy.what", { what: url }))), ...hint);
}

class Servers {
  #section;
  #list;
  question = new Question(30_000, (signal) => ask("servers", {}, signal), (answer) => this.#show(answer));

  constructor(section) {
    this.#section = section;
    section.hidden = true;
    this.#list = new List(section, {
      title: "servers.title",
      columns: [
        { text: "column.server" }, { text: "column.hashrate", class: "num" }, { text: "column.workers", class: "num" },
        { text: "column.rejects", class: "num" }, { text: "column.last", class: "num wider" },
      ],
    });
  }

  #show({ servers }) {
    this.#section.hidden = servers.length === 0;
    this.#list.fill(servers, (s) => String(s.server), () => row("strong", "num", "num", "num", "num quiet wider"), (tr, s) => {
      const [name, rate, workers, rejects, last] = tr.cells;
      set(name, t("servers.one", { id: String(s.server) }));
      set(rate, hashrate(s.hashrate["5m"]));
      set(workers, integer(s.workers));
      showRatio(rejects, s.shares_1h.reject_ratio);
      showLast(last, s.last_share_at);
    }, "");
  }
}

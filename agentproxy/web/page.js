// The status page. Names come from machines and are hostile: they reach the page as text only.

const $ = (id) => document.getElementById(id);
const view = { sort: "-hashrate", q: "", limit: 50, silent: false };
const interval = 3000; // ms
let timer = 0;

const scaled = (v, letters) => {
  let i = 0;
  for (; v >= 999.5 && i < letters.length - 1; v /= 1000) i++;
  return `${v === 0 ? "0" : v >= 99.95 ? v.toFixed(0) : v >= 9.995 ? v.toFixed(1) : v.toPrecision(3)} ${letters[i]}`.trim();
};
const hashrate = (v) => scaled(v, ["H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s"]);
const bytes = (v) => scaled(v, ["B", "kB", "MB", "GB", "TB"]);
const difficulty = (v) => (v < 1 ? v.toPrecision(3) : scaled(v, ["", "K", "M", "G", "T", "P", "E"]));
const percent = (v) => `${(v * 100).toFixed(1)} %`;
const count = (v) => v.toLocaleString("en").replaceAll(",", "\u202f");

function ago(time, now) {
  if (!time) return "–";
  const s = Math.max(0, (new Date(now) - new Date(time)) / 1000);
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  return s < 172_800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86_400)} d`;
}

function row(cells, name = "") {
  const tr = document.createElement("tr");
  tr.className = name;
  for (const [text, kind = ""] of cells) {
    const td = document.createElement("td");
    td.textContent = text;
    td.className = kind;
    tr.append(td);
  }
  return tr;
}

function show(sum, found) {
  $("main").hidden = false;
  $("hashrate").textContent = hashrate(sum.hashrate);
  $("miners").textContent = count(sum.miners);
  $("waiting").textContent = count(sum.waiting);
  $("accepted").textContent = count(sum.accepted);
  $("accepted-title").textContent = sum.verdicts === "pool" ? "Accepted by the pool" : "Sent to the pool";
  $("easy").textContent = count(sum.answered_here);
  $("easy").parentElement.hidden = sum.answered_here === 0;
  $("silent").textContent = `Silent: ${count(sum.silent)}`;
  $("silent").className = sum.silent > 0 ? "bad" : "";
  $("silent").setAttribute("aria-pressed", String(view.silent));
  $("rejected").textContent = count(sum.rejected);
  $("version").textContent = `agentproxy ${sum.version}`;
  $("fault").hidden = sum.fault === null;
  $("fault").textContent = sum.fault ?? "";
  $("weights").hidden = sum.goals.every((g) => g.weight === 1);
  $("goals").replaceChildren(...sum.goals.map((g) => row([
    [g.pool],
    [g.account],
    [percent(g.weight), "n"],
    [percent(g.part), "n"],
    [count(g.miners), "n"],
    [hashrate(g.hashrate), "n"],
  ])));
  $("links").replaceChildren(...sum.links.map((l) => row([
    [l.pool + (l.proxy ? ` by ${l.proxy}` : "")],
    [l.account],
    [l.state + (l.protocol === "stratum" ? " (plain Stratum)" : ""), l.state === "up" ? "" : "bad"],
    [count(l.miners), "n"],
    [l.round_trip === null ? "–" : `${(l.round_trip * 1000).toFixed(0)} ms`, "n"],
    [ago(l.last_job, sum.time), "n"],
    [bytes(l.bytes_out), "n"],
    [bytes(l.bytes_in), "n"],
    [l.version_mask],
  ])));
  $("workers").replaceChildren(...found.workers.map((w) => row([
    [sum.multi_user ? `${w.account}.${w.name}` : w.name],
    [w.ip],
    [!w.online ? (w.silent ? "gone" : "offline") : w.silent ? "silent" : w.hashrate === null ? "measuring" : hashrate(w.hashrate), w.silent ? "n bad" : "n"],
    [ago(w.last_share, sum.time), "n"],
    [count(w.accepted) + (w.answered_here > 0 ? ` + ${count(w.answered_here)} easy` : ""), "n"],
    [count(w.rejected), w.rejected > 0 ? "n bad" : "n"],
    [Object.entries(w.rejects).map(([why, n]) => `${why}: ${n}`).join(", ")],
    [difficulty(w.difficulty), "n"],
    [w.software],
  ], w.online ? "" : "gone")));
  $("more").hidden = found.workers.length >= found.total;
  for (const b of document.querySelectorAll("[data-sort]")) b.setAttribute("aria-pressed", String(b.dataset.sort === view.sort));
}

async function ask(path, parameters) {
  const answer = await fetch(`/api/v1/${path}?${new URLSearchParams(parameters)}`, { signal: AbortSignal.timeout(8000) });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return; // visibilitychange asks again
  try {
    const [sum, found] = await Promise.all([ask("summary", {}), ask("workers", { sort: view.sort, limit: view.limit, ...(view.q && { q: view.q }), ...(view.silent && { only: "silent" }) })]);
    show(sum, found);
    document.body.classList.remove("old");
    state(sum.fault === null ? "live" : "wait", sum.fault === null ? "Live" : "No pool");
  } catch {
    document.body.classList.add("old");
    state("lost", "The proxy does not answer: figures are old");
  }
  timer = setTimeout(refresh, interval);
}

function state(kind, text) {
  $("state").dataset.state = kind;
  $("state").textContent = text;
}

$("find").addEventListener("input", (e) => { view.q = e.target.value.trim(); refresh(); });
$("silent").addEventListener("click", () => { view.silent = !view.silent; refresh(); });
$("more").addEventListener("click", () => { view.limit = Math.min(1000, view.limit * 4); refresh(); });
for (const b of document.querySelectorAll("[data-sort]")) b.addEventListener("click", () => { view.sort = b.dataset.sort; refresh(); });
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
refresh();

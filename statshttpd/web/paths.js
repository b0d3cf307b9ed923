// Where things are: addresses of pages and of the API's answers. A page's address is in the part after "#", so that it
// can be reloaded and shared wherever this is served.

import settings from "/assets/settings.js";

const patience = 8000; // ms for one answer

// part writes a name as a part of a path. A browser would take "." and ".." for directions: these go by id.
function part(name, id) {
  return encodeURIComponent(name === "" || name === "." || name === ".." ? id : name);
}

export const userPage = (w) => `#/user/${part(w.user, w.user_id)}`;
export const workerPage = (w) => `#/worker/${part(w.user, w.user_id)}/${part(w.worker, w.worker_id)}`;

// finderPage is the page of who found a block: user and worker in one name, the user without a dot.
export function finderPage(finder) {
  const dot = finder.indexOf(".");
  return dot < 0 ? userPage({ user: finder }) : workerPage({ user: finder.slice(0, dot), worker: finder.slice(dot + 1) });
}

// here is the page that the address names: home, a user's or a worker's.
export function here() {
  const [, kind, ...names] = location.hash.split("/");
  try {
    const [user, worker] = names.map(decodeURIComponent);
    if (kind === "user" && user && names.length === 1) return { kind, user, path: `users/${part(user, "-")}`, listen: { user } };
    if (kind === "worker" && user && worker && names.length === 2) {
      return { kind, user, worker, path: `workers/${part(user, "-")}/${part(worker, "-")}`, listen: { user, worker } };
    }
  } catch {
    // not an address that was made here
  }
  return { kind: "home", path: "pool", listen: {} };
}

// address is that of an answer of the API.
export function address(path, parameters = {}) {
  const query = String(new URLSearchParams(parameters));
  return `/api/v1/${path}${query && `?${query}`}`;
}

export async function ask(path, parameters, signal = AbortSignal.timeout(patience)) {
  const answer = await fetch(address(path, parameters), { signal });
  if (!answer.ok) throw Object.assign(new Error(`${path}: ${answer.status}`), { status: answer.status });
  return answer.json();
}

// question is a signal for several questions.
export function question() {
  const mine = new AbortController();
  return { mine, signal: AbortSignal.any([mine.signal, AbortSignal.timeout(patience)]) };
}

// blockPage is the page of a block at an explorer of its chain, empty where none is known.
export function blockPage(chain, block) {
  const values = { "{hash}": block.hash, "{height}": block.height };
  const template = settings.explorers[chain] ?? "";
  const missing = Object.entries(values).some(([place, value]) => template.includes(place) && value === undefined);
  return missing ? "" : template.replace(/\{hash\}|\{height\}/g, (place) => encodeURIComponent(values[place]));
}

const hashesPerDifficulty = 2 ** 32;

// secondsToBlock is how long a hashrate takes for a block on average, null where that cannot be told.
export function secondsToBlock(pool, rate) {
  return pool.network && rate > 0 ? (pool.network.difficulty * hashesPerDifficulty) / rate : null;
}

// What the pool says: asked for while a page is new, then pushed by server-sent events, and asked for again and again
// where these do not come; and what is asked for besides.

import { address, ask, question } from "/assets/paths.js";

const interval = 5000; // ms from one event to the next, and from one question to the next; doubles while nothing answers
const longest = 30_000;
const settle = 10_000; // ms until events are listened to: a browser may wait until a page is at rest
const silence = 15_000; // ms without an event until somebody must have cut the wire
const again = 60_000; // ms until events are tried again while answers come and events do not
const retry = 10_000; // ms until what did not come is asked for again, at the soonest
const kinds = ["pool", "block", "user", "worker", "gone"];

export class Feed {
  #told;
  #lost;
  #page = null; // what is listened to, null for nothing
  #source = null;
  #asking = null; // AbortController of the questions under way
  #timer = 0;
  #wait = interval;
  #tried = 0; // when events were

  // told(kind, answer) is called with what an event has, lost(seconds) when there was no answer and how long until the
  // next question.
  constructor({ told, lost }) {
    this.#told = told;
    this.#lost = lost;
  }

  open(page) {
    this.close();
    this.#page = page;
    this.#wait = interval;
    this.#tried = Date.now() - again + settle;
    this.#poll();
  }

  close() {
    this.#hangUp();
    this.#asking?.abort();
    this.#page = null;
  }

  #hangUp() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }

  #listen() {
    this.#tried = Date.now();
    const source = new EventSource(address("events", this.#page.listen));
    this.#source = source;
    for (const kind of kinds) {
      source.addEventListener(kind, (event) => {
        this.#watch();
        this.#wait = interval;
        this.#told(kind, JSON.parse(event.data));
      });
    }
    source.addEventListener("error", () => this.#poll());
    this.#watch();
  }

  #watch() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#poll(), silence);
  }

  async #poll() {
    this.#hangUp();
    const { mine, signal } = question();
    this.#asking = mine;
    const page = this.#page;
    const missing = (fault) => {
      if (fault.status === 404 || fault.status === 400) return null;
      throw fault;
    };
    try {
      const [pool, one] = await Promise.all([ask("pool", {}, signal), page.kind === "home" ? null : ask(page.path, {}, signal).catch(missing)]);
      if (mine.signal.aborted) return;
      this.#told("pool", pool);
      if (page.kind !== "home") this.#told(one ? page.kind : "gone", one ?? { kind: page.kind });
      this.#wait = interval;
    } catch {
      if (mine.signal.aborted) return;
      this.#wait = Math.min(this.#wait * 2, longest);
      this.#tried = 0; // events are worth a try as soon as there is an answer
      this.#lost(this.#wait / 1000);
      this.#timer = setTimeout(() => this.#poll(), this.#wait);
      return;
    }
    if (Date.now() - this.#tried >= again) this.#listen();
    else this.#timer = setTimeout(() => this.#poll(), interval);
  }
}

// Question is what is asked for when somebody is told something, but not each time.
export class Question {
  #every; // ms that an answer is good for
  #how;
  #show;
  #failed;
  #asked = 0; // when, 0 for what must be asked
  #running = null;

  // how(signal) asks, show(answer) is called with what came, and failed() when nothing did.
  constructor(every, how, show, failed = () => {}) {
    this.#every = every;
    this.#how = how;
    this.#show = show;
    this.#failed = failed;
  }

  // anew has the answer that is shown, or under way, be of no use.
  anew() {
    this.#asked = 0;
    this.stop();
  }

  again() {
    this.anew();
    this.look();
  }

  stop() {
    if (!this.#running) return;
    this.#running.abort();
    this.#running = null;
    this.#asked = 0; // for nothing
  }

  async look() {
    if (this.#running || Date.now() - this.#asked < this.#every) return;
    this.#asked = Date.now();
    const { mine, signal } = question();
    this.#running = mine;
    let answer;
    try {
      answer = await this.#how(signal);
    } catch {
      if (this.#running !== mine) return;
      this.#running = null;
      this.#asked = Date.now() - Math.max(0, this.#every - retry);
      this.#failed();
      return;
    }
    if (this.#running !== mine) return;
    this.#running = null;
    this.#show(answer);
  }
}

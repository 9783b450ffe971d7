// A world in virtual time: nothing happens until a test lets time pass.

import type { World } from "../src/model/ports";

export class TestWorld implements World {
  private time = 1_700_000_000_000;
  private timers: { at: number; run: () => void }[] = [];
  readonly store = new Map<string, string>();

  now(): number {
    return this.time;
  }
  after(ms: number, run: () => void): () => void {
    const timer = { at: this.time + ms, run };
    this.timers.push(timer);
    return () => (this.timers = this.timers.filter((other) => other !== timer));
  }
  random(): number {
    return 0;
  }
  keep(key: string, value: string | null): void {
    if (value === null) this.store.delete(key);
    else this.store.set(key, value);
  }
  kept(key: string): string | null {
    return this.store.get(key) ?? null;
  }

  /** The machine sleeps: time passes and no timer runs in it. */
  sleep(ms: number): void {
    this.time += ms;
    for (const timer of this.timers) timer.at += ms;
  }

  /** Lets `ms` pass, in order, with all that promises do in between. */
  async pass(ms: number): Promise<void> {
    const until = this.time + ms;
    await settle();
    for (;;) {
      const [next] = this.timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at);
      if (!next) break;
      this.timers = this.timers.filter((timer) => timer !== next);
      this.time = Math.max(this.time, next.at);
      next.run();
      await settle();
    }
    this.time = until;
  }
}

/** Until promises and streams of this turn have run out. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn += 1) await new Promise((done) => setImmediate(done));
}

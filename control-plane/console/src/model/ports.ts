// What the model needs of the world around it, so that tests can give it another: time, timers and chance.

export interface World {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** Calls `run` after `ms`; the result cancels it. */
  after(ms: number, run: () => void): () => void;
  /** In [0, 1). */
  random(): number;
  /** Remembers text over a reload; `null` forgets it. */
  keep(key: string, value: string | null): void;
  kept(key: string): string | null;
}

export function browserWorld(): World {
  return {
    now: () => Date.now(),
    after: (ms, run) => {
      const id = setTimeout(run, ms);
      return () => clearTimeout(id);
    },
    random: Math.random,
    // Storage may be forbidden by policy; the console then only forgets on reload.
    keep: (key, value) => {
      try {
        if (value === null) localStorage.removeItem(key);
        else localStorage.setItem(key, value);
      } catch {
        return;
      }
    },
    kept: (key) => {
      try {
        return localStorage.getItem(key);
      } catch {
        return null;
      }
    },
  };
}

export function sleep(world: World, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal?.aborted) return done();
    const cancel = world.after(ms, done);
    signal?.addEventListener("abort", () => (cancel(), done()), { once: true });
  });
}

// What the model needs of the world around it, so that tests can give it another: time, timers and chance.

export type Where = "tab" | "browser";

export interface World {
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** Calls `run` after `ms`; the result cancels it. */
  after(ms: number, run: () => void): () => void;
  /** In [0, 1). */
  random(): number;
  /** Remembers text over a reload, in this tab alone or in all of this browser; `null` forgets it. */
  keep(key: string, value: string | null, where?: Where): void;
  kept(key: string, where?: Where): string | null;
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
    keep: (key, value, where = "browser") => {
      try {
        const storage = where === "tab" ? sessionStorage : localStorage;
        if (value === null) storage.removeItem(key);
        else storage.setItem(key, value);
      } catch {
        return;
      }
    },
    kept: (key, where = "browser") => {
      try {
        return (where === "tab" ? sessionStorage : localStorage).getItem(key);
      } catch {
        return null;
      }
    },
  };
}

export function sleep(world: World, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((done) => {
    if (signal?.aborted) return done();
    const abort = (): void => (cancel(), done());
    // A signal outlives many sleeps: none may leave anything behind on it.
    const cancel = world.after(ms, () => (signal?.removeEventListener("abort", abort), done()));
    signal?.addEventListener("abort", abort, { once: true });
  });
}

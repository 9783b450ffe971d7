// Observable values for the model. A cell is read, set and subscribed to; it follows the contract of a Svelte
// store, so that a view may write `$cell`, but knows nothing of Svelte. Invariant: a subscriber is called with the
// present value at once, and afterwards only when the value has really changed (`Object.is`).
// It does not batch: who changes much at once uses `Batch`.

export interface Readable<T> {
  get(): T;
  subscribe(run: (value: T) => void): () => void;
}

export class Cell<T> implements Readable<T> {
  private readonly runs = new Set<(value: T) => void>();
  constructor(private value: T) {}

  get(): T {
    return this.value;
  }

  set(value: T): void {
    if (Object.is(value, this.value)) return;
    this.value = value;
    for (const run of [...this.runs]) run(value);
  }

  update(change: (value: T) => T): void {
    this.set(change(this.value));
  }

  subscribe(run: (value: T) => void): () => void {
    this.runs.add(run);
    run(this.value);
    return () => this.runs.delete(run);
  }
}

/** One cell a key, made when first asked for; unknown keys hold the fallback. */
export class CellMap<V> {
  private readonly cells = new Map<string, Cell<V>>();
  constructor(private readonly fallback: V) {}

  of(key: string): Cell<V> {
    let cell = this.cells.get(key);
    if (!cell) {
      cell = new Cell(this.fallback);
      this.cells.set(key, cell);
    }
    return cell;
  }

  get(key: string): V {
    return this.cells.get(key)?.get() ?? this.fallback;
  }

  set(key: string, value: V): void {
    this.of(key).set(value);
  }

  keys(): string[] {
    return [...this.cells.keys()];
  }

  /** Sets every key that is not in `keep` back to the fallback. */
  resetExcept(keep: ReadonlySet<string>): void {
    for (const [key, cell] of this.cells) if (!keep.has(key)) cell.set(this.fallback);
  }
}

type Values<C extends readonly Readable<unknown>[]> = { [I in keyof C]: C[I] extends Readable<infer T> ? T : never };

/** A value computed from others; it listens to them only while somebody listens to it. */
export function computed<const C extends readonly Readable<unknown>[], T>(
  sources: C,
  compute: (...values: Values<C>) => T,
): Readable<T> {
  const read = (): T => compute(...(sources.map((source) => source.get()) as Values<C>));
  return {
    get: read,
    subscribe(run) {
      let ready = false;
      let last: T;
      const changed = (): void => {
        if (!ready) return;
        const next = read();
        if (Object.is(next, last)) return;
        last = next;
        run(next);
      };
      const stops = sources.map((source) => source.subscribe(changed));
      ready = true;
      last = read();
      run(last);
      return () => {
        for (const stop of stops) stop();
      };
    },
  };
}

/** Runs `work` once for many calls of `mark`, when `schedule` says so. */
export class Batch {
  private marked = false;
  constructor(
    private readonly work: () => void,
    private readonly schedule: (run: () => void) => void,
  ) {}

  mark(): void {
    if (this.marked) return;
    this.marked = true;
    this.schedule(() => this.flush());
  }

  flush(): void {
    if (!this.marked) return;
    this.marked = false;
    this.work();
  }
}

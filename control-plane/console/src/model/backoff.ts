// How long to wait before trying again: doubling from `first` to `most`, each time shortened by up to a quarter so
// that a hundred consoles do not come back in the same instant. Randomness comes in.

export class Backoff {
  private tries = 0;
  constructor(
    private readonly first: number,
    private readonly most: number,
    private readonly random: () => number,
  ) {}

  /** Milliseconds to wait now. */
  next(): number {
    const full = Math.min(this.most, this.first * 2 ** this.tries);
    if (full < this.most) this.tries += 1;
    return Math.round(full * (1 - this.random() / 4));
  }

  reset(): void {
    this.tries = 0;
  }
}

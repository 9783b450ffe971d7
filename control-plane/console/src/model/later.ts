// A part of the page that is fetched after the first load: asked for until it is there, and known to whoever waits for
// it. A network that is away costs a wait, not the part.

import { Cell } from "./cell";

const AGAIN_MS = 1_000;

export class Later<T> {
  readonly part = new Cell<T | undefined>(undefined);
  private fetching = false;

  constructor(private readonly fetch: () => Promise<T>) {}

  need(): void {
    if (this.fetching || this.part.get()) return;
    this.fetching = true;
    void this.fetch().then(
      (part) => this.part.set(part),
      () => {
        this.fetching = false;
        setTimeout(() => this.need(), AGAIN_MS);
      },
    );
  }
}

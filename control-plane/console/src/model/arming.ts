// What cannot be taken back wants a second press of the same thing within four seconds. One thing is armed at a time,
// whether it was pressed by the mouse or by a key, so that what is armed can be shown where it is.

import { Cell } from "./cell";
import type { World } from "./ports";

export const ARMED_MS = 4_000;

export class Arming {
  /** Empty while nothing is. */
  readonly armed = new Cell("");
  private cancel: () => void = () => undefined;

  constructor(private readonly world: World) {}

  /** True if this was the second press. */
  press(what: string): boolean {
    const second = this.armed.get() === what;
    this.disarm();
    if (second) return true;
    this.armed.set(what);
    this.cancel = this.world.after(ARMED_MS, () => this.disarm());
    return false;
  }

  disarm(): void {
    this.cancel();
    this.armed.set("");
  }
}

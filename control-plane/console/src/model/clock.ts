// One tick a second for everything that counts, and the difference between this machine's clock and the server's.

import { Cell } from "./cell";
import type { World } from "./ports";

export class Clock {
  /** The server's time in ms, moved on once a second. */
  readonly now: Cell<number>;
  private offset = 0;
  private cancel: () => void = () => undefined;

  constructor(private readonly world: World) {
    this.now = new Cell(world.now());
    this.tick();
  }

  /** The server says what time it is. */
  sync(serverMs: number): void {
    if (serverMs > 0) this.offset = serverMs - this.world.now();
  }

  /** A moment of this machine's clock as the server's clock has it. */
  ofServer(localMs: number): number {
    return localMs + this.offset;
  }

  serverNow(): number {
    return this.world.now() + this.offset;
  }

  stop(): void {
    this.cancel();
  }

  private tick(): void {
    this.now.set(this.serverNow());
    this.cancel = this.world.after(1_000 - (this.world.now() % 1_000), () => this.tick());
  }
}

/** Local time of day, 24 h. */
export function timeOfDay(ms: number, seconds = false): string {
  const at = new Date(ms);
  const two = (value: number): string => String(value).padStart(2, "0");
  const text = `${two(at.getHours())}:${two(at.getMinutes())}`;
  return seconds ? `${text}:${two(at.getSeconds())}` : text;
}

/** Time of day, with the date before it where that is not today. */
export function moment(ms: number, nowMs: number, seconds = false): string {
  const at = new Date(ms);
  if (at.toDateString() === new Date(nowMs).toDateString()) return timeOfDay(ms, seconds);
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${two(at.getMonth() + 1)}-${two(at.getDate())} ${timeOfDay(ms, seconds)}`;
}

/** "0:07", "12:40", "3:07:12": a duration that counts up. */
export function duration(ms: number): string {
  const all = Math.max(0, Math.floor(ms / 1_000));
  const two = (value: number): string => String(value).padStart(2, "0");
  const hours = Math.floor(all / 3_600);
  const minutes = Math.floor(all / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(all % 60)}` : `${minutes}:${two(all % 60)}`;
}

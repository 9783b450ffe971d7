// The slots of this browser as the views see them: for each a stream, what the relay says is in it, and how well it
// arrives. They outlive the leg behind them, so a tile keeps its place over a reconnect. Invariant: a slot is `shows`
// a site only when the relay has said so since the wish.

import { SlotStatus, type SlotState } from "../../gen/muster/media/v1/media_pb";
import { Cell } from "../cell";
import type { Received } from "./rtc";

export interface Health {
  fps: number;
  bps: number;
  /** Of the packets of the last interval. */
  lossPermille: number;
  /** Stood still in the last interval. */
  froze: boolean;
}

export class Slot {
  readonly stream = new Cell<MediaStream | undefined>(undefined);
  readonly state = new Cell<SlotState | undefined>(undefined);
  readonly health = new Cell<Health | undefined>(undefined);
  /** When the state came, in ms of the same clock as video frames' `receiveTime`. */
  stateAt = 0;
  /** When the relay last spoke of it: the age in the state counts from here. */
  heardAt = 0;
  private last: { at: number; received: Received } | undefined;

  constructor(readonly name: string) {}

  setState(state: SlotState | undefined, at: number): void {
    const was = this.state.get();
    const moved = was?.status !== state?.status || was?.source?.site !== state?.source?.site;
    if (moved) this.stateAt = at;
    this.heardAt = at;
    this.state.set(state);
    if (state?.status !== SlotStatus.LIVE) this.health.set(undefined);
  }

  /** Takes a reading of the counters; two make a rate. */
  measure(at: number, received: Received): void {
    const last = this.last;
    this.last = { at, received };
    if (!last || at <= last.at || received.packets < last.received.packets) return;
    const seconds = (at - last.at) / 1_000;
    const packets = received.packets - last.received.packets;
    const lost = Math.max(0, received.lost - last.received.lost);
    const now: Health = {
      fps: Math.round((received.frames - last.received.frames) / seconds),
      bps: Math.round(((received.bytes - last.received.bytes) * 8) / seconds / 10_000) * 10_000,
      lossPermille: packets + lost ? Math.round((lost * 1_000) / (packets + lost)) : 0,
      froze: received.freezes > last.received.freezes,
    };
    const was = this.health.get();
    const same =
      was && was.fps === now.fps && was.bps === now.bps && was.lossPermille === now.lossPermille && was.froze === now.froze;
    if (!same) this.health.set(now);
  }

  /** A new leg stands behind the slot: nothing is known of what is in it yet. */
  adopt(stream: MediaStream): void {
    this.forget();
    this.stream.set(stream);
  }

  forget(): void {
    this.stream.set(undefined);
    this.state.set(undefined);
    this.health.set(undefined);
    this.last = undefined;
  }
}

export type Bars = 0 | 1 | 2 | 3;
export type BarsReason = "none" | "good" | "loss" | "heavy_loss" | "freezing";

/** Three bars and why, for a slot that is live; none otherwise. */
export function bars(state: SlotState | undefined, health: Health | undefined): { bars: Bars; reason: BarsReason } {
  if (state?.status !== SlotStatus.LIVE) return { bars: 0, reason: "none" };
  if (!health) return { bars: 3, reason: "good" };
  if (health.lossPermille >= 100) return { bars: 1, reason: "heavy_loss" };
  if (health.froze || health.fps === 0) return { bars: 1, reason: "freezing" };
  if (health.lossPermille >= 20) return { bars: 2, reason: "loss" };
  return { bars: 3, reason: "good" };
}

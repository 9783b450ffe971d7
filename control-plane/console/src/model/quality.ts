// How each site's leg fares in the meeting in view, as its relay judges it, and what a mark on a picture says of it.
// Invariant: only what the Watch stream has told is known; what a site's leg lost is gone when the leg is. The mark of
// a picture is the worse of two: how the site fares, and how the picture arrives at this browser.

import type { SiteQuality } from "../gen/muster/command/v1/types_pb";
import { QualityMark, QualityReason, Rung, SlotStatus, type LegQuality, type SlotState } from "../gen/muster/media/v1/media_pb";
import { Cell, CellMap } from "./cell";
import type { Bars, BarsReason } from "./media/slots";

export class Qualities {
  private readonly sites = new CellMap<LegQuality | undefined>(undefined);
  /** Sites of the meeting in view that fare poorly, in the order in which they were told. */
  readonly poor = new Cell<readonly string[]>([]);
  private readonly known = new Map<string, Map<string, LegQuality>>();
  private inView = "";

  of(site: string): Cell<LegQuality | undefined> {
    return this.sites.of(site);
  }

  /** A snapshot: all that is known. */
  anew(list: readonly SiteQuality[]): void {
    this.known.clear();
    this.take(list);
    this.show();
  }

  /** What has changed; without a quality the leg is gone. */
  change(list: readonly SiteQuality[]): void {
    this.take(list);
    for (const { meeting, site, quality } of list) if (meeting === this.inView) this.sites.set(site, quality);
    this.findPoor();
  }

  view(meeting: string): void {
    if (meeting === this.inView) return;
    this.inView = meeting;
    this.show();
  }

  forget(meeting: string): void {
    if (this.known.delete(meeting) && meeting === this.inView) this.show();
  }

  private take(list: readonly SiteQuality[]): void {
    for (const { meeting, site, quality } of list) {
      let sites = this.known.get(meeting);
      if (!sites) this.known.set(meeting, (sites = new Map()));
      if (quality) sites.set(site, quality);
      else sites.delete(site);
    }
  }

  private show(): void {
    const sites = this.known.get(this.inView) ?? new Map<string, LegQuality>();
    this.sites.resetExcept(new Set(sites.keys()));
    for (const [site, quality] of sites) this.sites.set(site, quality);
    this.findPoor();
  }

  private findPoor(): void {
    const sites = [...(this.known.get(this.inView) ?? [])];
    const poor = sites.filter(([, { mark }]) => mark === QualityMark.POOR).map(([site]) => site);
    const was = this.poor.get();
    if (poor.length !== was.length || poor.some((site, at) => site !== was[at])) this.poor.set(poor);
  }
}

/** A still has come every two seconds; two that are missing make the picture an old one. */
const STILLS_STALE_MS = 5_000;

/** Whether the picture in a slot is an old one, by what the relay says of the slot and of the site's leg. */
export function isOld(state: SlotState | undefined, site: LegQuality | undefined): boolean {
  if (state?.status !== SlotStatus.STALE) return false;
  return site?.rung !== Rung.STILLS || state.ageMs >= STILLS_STALE_MS;
}

/** What a mark says: how many bars, and whose trouble it is. */
export type Verdict =
  | { bars: 0; of: "nobody" }
  | { bars: Exclude<Bars, 0>; of: "site"; reason: QualityReason; rung: Rung }
  | { bars: Exclude<Bars, 0>; of: "here"; reason: BarsReason };

const BARS: Record<QualityMark, Bars> = {
  [QualityMark.UNSPECIFIED]: 0,
  [QualityMark.POOR]: 1,
  [QualityMark.FAIR]: 2,
  [QualityMark.GOOD]: 3,
};

/** `here` is how the picture arrives at this browser; of two equally bad the site's is told. */
export function verdict(site: LegQuality | undefined, here: { bars: Bars; reason: BarsReason }): Verdict {
  const bars = BARS[site?.mark ?? QualityMark.UNSPECIFIED];
  if (here.bars !== 0 && (bars === 0 || here.bars < bars)) return { bars: here.bars, of: "here", reason: here.reason };
  if (bars === 0 || !site) return { bars: 0, of: "nobody" };
  return { bars, of: "site", reason: site.reason, rung: site.rung };
}

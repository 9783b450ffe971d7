// Who is there: presence of each site, what became of each summons, and the counts of every unit above. Invariant:
// the counts of a unit are those of its subtree, and only units that really changed make their row render again.

import {
  SummonsState,
  type Presence,
  type Summons,
} from "../gen/muster/command/v1/types_pb";
import { Batch, Cell, CellMap } from "./cell";
import { Directory, type UnitNode } from "./directory";

export interface UnitCount {
  total: number;
  online: number;
  called: number;
  onAir: number;
}

const NOBODY: UnitCount = { total: 0, online: 0, called: 0, onAir: 0 };

export class Roster {
  readonly directory = new Cell(new Directory());
  readonly presence = new CellMap<Presence | undefined>(undefined);
  readonly summons = new CellMap<Summons | undefined>(undefined);
  readonly counts = new CellMap<UnitCount>(NOBODY);
  readonly total = new Cell<UnitCount>(NOBODY);
  /** Goes up when lists that are filtered by presence or summons may have changed. */
  readonly version = new Cell(0);
  private readonly dirty = new Set<string>();
  private readonly batch: Batch;

  constructor(schedule: (run: () => void) => void) {
    this.batch = new Batch(() => this.recount(), schedule);
  }

  setDirectory(directory: Directory): void {
    this.directory.set(directory);
    this.dirty.clear();
    for (const unit of directory.units.keys()) this.dirty.add(unit);
    this.batch.mark();
  }

  setPresence(list: readonly Presence[], whole: boolean): void {
    for (const presence of list) {
      const was = this.presence.get(presence.site);
      if (was && was.online === presence.online && was.sinceMs === presence.sinceMs) continue;
      this.presence.set(presence.site, presence);
      this.touch(presence.site);
    }
    if (whole) {
      const named = new Set(list.map((presence) => presence.site));
      for (const site of this.presence.keys()) {
        if (named.has(site) || !this.presence.get(site)) continue;
        this.presence.set(site, undefined);
        this.touch(site);
      }
    }
  }

  setSummons(summons: Summons): void {
    this.summons.set(summons.site, summons);
    this.touch(summons.site);
  }

  /** The meeting in view changed: only these are called now. */
  setAllSummonses(list: readonly Summons[]): void {
    const named = new Set(list.map((summons) => summons.site));
    for (const site of this.summons.keys()) {
      if (named.has(site) || !this.summons.get(site)) continue;
      this.summons.set(site, undefined);
      this.touch(site);
    }
    for (const summons of list) this.setSummons(summons);
  }

  online(site: string): boolean {
    return this.presence.get(site)?.online ?? false;
  }

  /** Carries out what is waiting, for those who cannot wait for the next turn. */
  flush(): void {
    this.batch.flush();
  }

  private touch(site: string): void {
    for (const node of this.directory.get().path(site)) this.dirty.add(node.unit.id);
    this.batch.mark();
  }

  private recount(): void {
    const directory = this.directory.get();
    for (const id of this.dirty) {
      const node = directory.units.get(id);
      if (node) this.counts.set(id, keepIfSame(this.counts.get(id), this.count(node.all)));
    }
    this.dirty.clear();
    this.total.set(keepIfSame(this.total.get(), this.sum(directory.roots)));
    this.version.update((version) => version + 1);
  }

  private sum(roots: readonly UnitNode[]): UnitCount {
    const sum = { ...NOBODY };
    for (const root of roots) {
      const count = this.counts.get(root.unit.id);
      sum.total += count.total;
      sum.online += count.online;
      sum.called += count.called;
      sum.onAir += count.onAir;
    }
    return sum;
  }

  private count(sites: readonly string[]): UnitCount {
    const count = { ...NOBODY, total: sites.length };
    for (const site of sites) {
      if (this.online(site)) count.online += 1;
      const summons = this.summons.get(site);
      if (!summons) continue;
      count.called += 1;
      if (summons.state === SummonsState.ON_AIR) count.onAir += 1;
    }
    return count;
  }
}

function keepIfSame(was: UnitCount, now: UnitCount): UnitCount {
  const same =
    was.total === now.total && was.online === now.online && was.called === now.called && was.onAir === now.onAir;
  return same ? was : now;
}

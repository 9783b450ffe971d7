// Which slot shows which site of the wall. Invariant: a site that is in a slot already stays in it, so that a page that
// was loaded ahead is there at once; without anything loaded ahead, tile i uses slot i.

export interface SlotPlan {
  /** The slot of each tile, by its place on the wall. */
  tiles: readonly number[];
  /** What is loaded ahead, in slots that no tile uses. */
  ahead: readonly { slot: number; site: string }[];
}

export class SlotPlanner {
  private readonly held = new Map<number, string>();

  /** `slots`: how many there are. */
  plan(visible: readonly string[], next: readonly string[], slots: number): SlotPlan {
    const where = new Map<string, number>();
    for (const [slot, site] of this.held) if (slot < slots) where.set(site, slot);
    const taken = new Set<number>();
    const keep = next.length > 0 || visible.some((site, at) => (where.get(site) ?? at) >= visible.length);
    const tiles = visible.map((site, at) => {
      const slot = keep ? where.get(site) : at;
      if (slot === undefined || slot >= slots || taken.has(slot)) return -1;
      taken.add(slot);
      return slot;
    });
    const free = (): number => {
      for (let slot = 0; slot < slots; slot += 1) if (!taken.has(slot)) return (taken.add(slot), slot);
      return -1;
    };
    for (let at = 0; at < tiles.length; at += 1) if (tiles[at] === -1) tiles[at] = this.emptiest(taken, next, where, slots) ?? free();
    const ahead: { slot: number; site: string }[] = [];
    const wanted = next.filter((site) => !visible.includes(site));
    for (const site of wanted) {
      const slot = where.get(site);
      if (slot === undefined || taken.has(slot)) continue;
      taken.add(slot);
      ahead.push({ slot, site });
    }
    for (const site of wanted) {
      if (ahead.some((loaded) => loaded.site === site)) continue;
      const slot = free();
      if (slot < 0) break;
      ahead.push({ slot, site });
    }
    this.held.clear();
    visible.forEach((site, at) => this.held.set(tiles[at]!, site));
    for (const { slot, site } of ahead) this.held.set(slot, site);
    return { tiles, ahead };
  }

  /** A slot that holds nothing of the next page. */
  private emptiest(taken: Set<number>, next: readonly string[], where: ReadonlyMap<string, number>, slots: number): number | undefined {
    const loaded = new Set(next.map((site) => where.get(site)));
    for (let slot = 0; slot < slots; slot += 1) {
      if (taken.has(slot) || loaded.has(slot)) continue;
      taken.add(slot);
      return slot;
    }
    return undefined;
  }
}

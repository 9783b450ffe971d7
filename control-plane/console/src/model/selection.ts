// Which sites are chosen, with three states for every unit above them, and the selector that says the same to the
// control plane. Invariant: what is ticked is what is called; a whole subtree is named by its unit, the rest by
// site. It knows nothing of presence: a filter is handed in as the set of sites that it leaves visible.

import { create } from "@bufbuild/protobuf";
import { SelectorSchema, type Selector } from "../gen/muster/command/v1/types_pb";
import { Cell, CellMap } from "./cell";
import { Directory, type UnitNode } from "./directory";

export type Tick = "none" | "some" | "all";

export class Selection {
  readonly ticks = new CellMap<Tick>("none");
  readonly count = new Cell(0);
  private readonly chosen = new Set<string>();
  private directory = new Directory();

  setDirectory(directory: Directory): void {
    this.directory = directory;
    for (const site of [...this.chosen]) if (!directory.sites.has(site)) this.chosen.delete(site);
    this.refresh();
  }

  has(site: string): boolean {
    return this.chosen.has(site);
  }

  sites(): string[] {
    return this.directory.sort(this.chosen);
  }

  clear(): void {
    this.chosen.clear();
    this.refresh();
  }

  /** Ticks a site or a unit's subtree (of which only `within`), or unticks it if all of it is ticked. */
  toggle(id: string, within?: ReadonlySet<string>): void {
    const all = this.directory.units.get(id)?.all ?? (this.directory.sites.has(id) ? [id] : []);
    this.toggleSites(within ? all.filter((site) => within.has(site)) : all);
  }

  toggleSites(sites: readonly string[]): void {
    const add = this.tickOf(sites) !== "all";
    for (const site of sites) {
      if (add) this.chosen.add(site);
      else this.chosen.delete(site);
    }
    this.refresh();
  }

  tickOf(sites: readonly string[]): Tick {
    let hits = 0;
    for (const site of sites) if (this.chosen.has(site)) hits += 1;
    return hits === 0 ? "none" : hits === sites.length ? "all" : "some";
  }

  selector(): Selector {
    const subtrees: string[] = [];
    const sites: string[] = [];
    const visit = (node: UnitNode): void => {
      const tick = this.tickOf(node.all);
      if (tick === "none") return;
      if (tick === "all") {
        subtrees.push(node.unit.id);
        return;
      }
      for (const site of node.own) if (this.chosen.has(site.id)) sites.push(site.id);
      node.children.forEach(visit);
    };
    this.directory.roots.forEach(visit);
    return create(SelectorSchema, { subtrees, sites });
  }

  private refresh(): void {
    const known = new Set<string>();
    for (const [id, node] of this.directory.units) {
      known.add(id);
      this.ticks.set(id, this.tickOf(node.all));
    }
    for (const id of this.directory.sites.keys()) {
      known.add(id);
      this.ticks.set(id, this.chosen.has(id) ? "all" : "none");
    }
    this.ticks.resetExcept(known);
    this.count.set(this.chosen.size);
  }
}

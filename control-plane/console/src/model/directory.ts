// The administrative tree as the console shows it: units, their sites, and the paths between. Immutable: an import
// makes a new one. A unit with one site and no unit below it is shown as that site alone (`folded`), because a
// hundred communities with one room each would otherwise take two lines each.

import { Tier, type Site, type Unit } from "../gen/muster/command/v1/types_pb";

export interface UnitNode {
  unit: Unit;
  depth: number;
  parent: UnitNode | undefined;
  children: UnitNode[];
  /** Sites of the unit itself. */
  own: Site[];
  /** Sites of the whole subtree, in tree order. */
  all: string[];
  folded: boolean;
}

export class Directory {
  readonly units = new Map<string, UnitNode>();
  readonly sites = new Map<string, Site>();
  readonly roots: UnitNode[] = [];
  /** All sites in tree order. */
  readonly order: string[] = [];
  readonly rank = new Map<string, number>();
  readonly tiers: { tier: Tier; sites: string[] }[] = [];
  readonly tags: { tag: string; sites: string[] }[] = [];

  constructor(units: readonly Unit[] = [], sites: readonly Site[] = []) {
    for (const unit of units) {
      this.units.set(unit.id, { unit, depth: 0, parent: undefined, children: [], own: [], all: [], folded: false });
    }
    for (const node of this.units.values()) {
      const parent = this.units.get(node.unit.parent);
      if (parent && parent !== node) {
        node.parent = parent;
        parent.children.push(node);
      } else this.roots.push(node);
    }
    for (const site of sites) {
      this.sites.set(site.id, site);
      this.units.get(site.unit)?.own.push(site);
    }
    for (const root of this.roots) this.walk(root, 0, new Set());
    this.order.forEach((site, index) => this.rank.set(site, index));
    this.group();
  }

  /** Units from the root down to the unit of a site, outermost first. */
  path(site: string): UnitNode[] {
    const path: UnitNode[] = [];
    const start = this.sites.get(site)?.unit;
    for (let node = start ? this.units.get(start) : undefined; node; node = node.parent) path.unshift(node);
    return path;
  }

  /** In tree order; names that are not known come last. */
  sort(sites: Iterable<string>): string[] {
    const rank = (site: string): number => this.rank.get(site) ?? Number.MAX_SAFE_INTEGER;
    return [...sites].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : 1));
  }

  /** Sites whose name in either language, or id, contains the words; or whose unit's does. */
  search(query: string): Set<string> {
    const found = new Set<string>();
    const wanted = query.trim().toLowerCase();
    if (!wanted) return found;
    const hit = (...texts: string[]): boolean => texts.some((text) => text.toLowerCase().includes(wanted));
    for (const site of this.sites.values()) if (hit(site.nameZh, site.nameEn, site.id)) found.add(site.id);
    for (const { unit, all } of this.units.values()) {
      if (hit(unit.nameZh, unit.nameEn)) for (const site of all) found.add(site);
    }
    return found;
  }

  private walk(node: UnitNode, depth: number, above: Set<UnitNode>): void {
    if (above.has(node)) return;
    above.add(node);
    node.depth = depth;
    node.folded = node.children.length === 0 && node.own.length === 1 && node.parent !== undefined;
    for (const site of node.own) {
      node.all.push(site.id);
      this.order.push(site.id);
    }
    for (const child of node.children) {
      this.walk(child, depth + 1, above);
      node.all.push(...child.all);
    }
    above.delete(node);
  }

  private group(): void {
    const tiers = new Map<Tier, string[]>();
    const tags = new Map<string, string[]>();
    const add = <K>(into: Map<K, string[]>, key: K, site: string): void => {
      const list = into.get(key);
      if (list) list.push(site);
      else into.set(key, [site]);
    };
    for (const id of this.order) {
      const site = this.sites.get(id)!;
      add(tiers, site.tier, id);
      for (const tag of site.tags) add(tags, tag, id);
    }
    for (const [tier, sites] of [...tiers].sort(([a], [b]) => a - b)) this.tiers.push({ tier, sites });
    for (const [tag, sites] of tags) this.tags.push({ tag, sites });
  }
}

export type Row =
  | { kind: "unit"; id: string; node: UnitNode; depth: number; open: boolean }
  | { kind: "site"; id: string; site: Site; depth: number };

/**
 * The lines of the tree, top to bottom. With `only`, just these sites and the units above them, all open; without,
 * what is in `open`.
 */
export function rows(directory: Directory, open: ReadonlySet<string>, only?: ReadonlySet<string>): Row[] {
  const lines: Row[] = [];
  const visit = (node: UnitNode): void => {
    if (only && !node.all.some((site) => only.has(site))) return;
    if (node.folded) return siteRows(node, node.depth);
    const isOpen = only !== undefined || open.has(node.unit.id);
    lines.push({ kind: "unit", id: node.unit.id, node, depth: node.depth, open: isOpen });
    if (!isOpen) return;
    siteRows(node, node.depth + 1);
    node.children.forEach(visit);
  };
  const siteRows = (node: UnitNode, depth: number): void => {
    for (const site of node.own) if (!only || only.has(site.id)) lines.push({ kind: "site", id: site.id, site, depth });
  };
  directory.roots.forEach(visit);
  return lines;
}

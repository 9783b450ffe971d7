import { describe, expect, it } from "vitest";
import { create } from "@bufbuild/protobuf";
import { PresenceSchema, Tier } from "../src/gen/muster/command/v1/types_pb";
import { Directory, rows } from "../src/model/directory";
import { Roster } from "../src/model/roster";
import { Selection } from "../src/model/selection";
import { eastLake } from "./eastlake";

describe("the tree of East Lake", () => {
  const directory = eastLake();

  it("holds every site once, in tree order", () => {
    expect(directory.order).toHaveLength(140);
    expect(new Set(directory.order).size).toBe(140);
    expect(directory.roots.map((root) => root.unit.id)).toEqual(["WH"]);
    expect(directory.roots[0]?.all).toHaveLength(140);
  });

  it("shows a community with one room as that room alone", () => {
    const lines = rows(directory, new Set(["WH", "WH-EL", "WH-EL-01"]));
    expect(lines.filter((line) => line.kind === "unit" && line.node.unit.tier === Tier.COMMUNITY)).toEqual([]);
    expect(lines.some((line) => line.kind === "site" && line.site.tier === Tier.COMMUNITY)).toBe(true);
  });

  it("opens what a search finds, and only that", () => {
    const found = directory.search("左岭");
    expect(found.size).toBeGreaterThan(1);
    const lines = rows(directory, new Set(), found);
    expect(lines.filter((line) => line.kind === "site").map((line) => line.id).sort()).toEqual([...found].sort());
  });

  it("survives a tree that bites its tail", () => {
    const wuhan = { ...directory.units.get("WH")!.unit, parent: "WH-EL" };
    expect(new Directory([wuhan, directory.units.get("WH-EL")!.unit]).order).toEqual([]);
  });
});

describe("choosing", () => {
  const start = (): Selection => {
    const selection = new Selection();
    selection.setDirectory(eastLake());
    return selection;
  };

  it("ticks a subtree, and shows the units above it as partly chosen", () => {
    const selection = start();
    selection.toggle("WH-EL-01");
    expect(selection.ticks.get("WH-EL-01")).toBe("all");
    expect(selection.ticks.get("WH-EL")).toBe("some");
    expect(selection.count.get()).toBe(13);
  });

  it("names whole subtrees by their unit and the rest by site", () => {
    const selection = start();
    selection.toggle("WH-EL-01");
    selection.toggle("WH-S01");
    expect(selection.selector()).toMatchObject({ subtrees: ["WH-EL-01"], sites: ["WH-S01"] });
  });

  it("names the whole tree by its root", () => {
    const selection = start();
    selection.toggle("WH");
    expect(selection.selector()).toMatchObject({ subtrees: ["WH"], sites: [] });
    selection.toggle("WH-S01");
    expect(selection.selector().subtrees).not.toContain("WH");
    expect(selection.count.get()).toBe(139);
  });

  it("under a filter touches only what is visible", () => {
    const selection = start();
    const visible = new Set(["WH-S01", "WH-EL-S01"]);
    selection.toggle("WH", visible);
    expect(selection.sites()).toEqual(["WH-S01", "WH-EL-S01"]);
    selection.toggle("WH", visible);
    expect(selection.count.get()).toBe(0);
  });

  it("forgets sites that an import has taken away", () => {
    const selection = start();
    selection.toggle("WH");
    selection.setDirectory(new Directory());
    expect(selection.count.get()).toBe(0);
  });
});

describe("counting", () => {
  it("tells only the units above a site that it came", () => {
    const waiting: (() => void)[] = [];
    const roster = new Roster((run) => waiting.push(run));
    roster.setDirectory(eastLake());
    waiting.splice(0).forEach((run) => run());
    const told: string[] = [];
    for (const unit of ["WH", "WH-EL", "WH-EL-01", "WH-EL-02"]) {
      let first = true;
      roster.counts.of(unit).subscribe(() => (first ? (first = false) : told.push(unit)));
    }
    const site = roster.directory.get().units.get("WH-EL-01")!.all[0]!;
    roster.setPresence([create(PresenceSchema, { site, online: true, sinceMs: 5n })], false);
    waiting.splice(0).forEach((run) => run());
    expect(told.sort()).toEqual(["WH", "WH-EL", "WH-EL-01"]);
    expect(roster.total.get()).toMatchObject({ total: 140, online: 1 });
  });
});

import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { AttendanceSchema, Check, DrillResultSchema } from "../src/gen/muster/command/v1/command_pb";
import { RollCallEntrySchema, RollCallResult, RollCallSchema, SummonsReason, SummonsSchema } from "../src/gen/muster/command/v1/types_pb";
import { csv, fileName } from "../src/model/csv";
import { badness } from "../src/model/drill";
import { withSlides } from "../src/model/media/rtc";
import { SlotPlanner } from "../src/model/media/slotplan";
import { attendanceRows, isAbsent, presences, rollCallRows, stamp, type Words } from "../src/model/records";
import { answerBy, grouped, viewOf } from "../src/model/rollcall";

const words: Words = {
  name: (site) => `name of ${site}`,
  unit: () => "unit",
  say: (key) => key,
  result: (result) => RollCallResult[result],
  reason: (reason) => (reason ? SummonsReason[reason] : ""),
  who: (by) => by,
};
const entry = (site: string, result: RollCallResult, more: object = {}) => create(RollCallEntrySchema, { site, result, ...more });

describe("a roll call", () => {
  const call = create(RollCallSchema, {
    number: 1,
    answerS: 15,
    entries: [
      entry("a", RollCallResult.PRESENT, { acknowledgedBy: "duty", calledMs: 1n, answeredMs: 2_000n, seenUp: true, seenDown: true }),
      entry("b", RollCallResult.ABSENT),
      entry("c", RollCallResult.UNREACHABLE, { reason: SummonsReason.OFFLINE }),
      entry("d", RollCallResult.BROKEN),
      entry("e", RollCallResult.CALLED, { calledMs: 10_000n }),
      entry("f", RollCallResult.WAITING),
    ],
  });

  it("says whose turn it is, who is next, and how far it has come", () => {
    const view = viewOf(call);
    expect([view.running, view.current?.site, view.next.map(({ site }) => site), view.done, view.all]).toEqual([true, "e", ["f"], 4, 6]);
    expect(answerBy(call, view.current)).toBe(25_000);
    expect(viewOf({ ...call, endedMs: 1n })).toMatchObject({ running: false, current: undefined, next: [] });
  });

  it("keeps present, absent, unreachable and broken apart, what needs a person first", () => {
    expect(grouped(call).map(({ result, entries }) => [result, entries.map(({ site }) => site)])).toEqual([
      [RollCallResult.BROKEN, ["d"]],
      [RollCallResult.UNREACHABLE, ["c"]],
      [RollCallResult.ABSENT, ["b"]],
      [RollCallResult.PRESENT, ["a"]],
      [RollCallResult.WAITING, ["e", "f"]],
    ]);
  });

  it("is written with its evidence", () => {
    const rows = rollCallRows(call, words);
    expect(rows[0]).toHaveLength(9);
    expect(rows[2]?.slice(3, 5)).toEqual(["UNREACHABLE", "OFFLINE"]);
    expect(rows[4]?.slice(6)).toEqual(["duty", "yes", "yes"]);
  });
});

describe("attendance", () => {
  const list = presences(
    [
      create(AttendanceSchema, { site: "a", totalMs: 70_000n, onAir: [{ fromMs: 1n, toMs: 60_001n }, { fromMs: 90_001n, toMs: 0n }] }),
      create(AttendanceSchema, { site: "never" }),
    ],
    { summonses: [create(SummonsSchema, { site: "never", reason: SummonsReason.OFFLINE })] },
  );

  it("tells when a site came first, its gaps, that it is still there, and who never came", () => {
    expect(list).toMatchObject([
      { site: "a", firstMs: 1, lastMs: 0, totalMs: 70_000, gaps: [{ fromMs: 60_001, toMs: 90_001 }] },
      { site: "never", firstMs: 0, totalMs: 0, gaps: [], reason: SummonsReason.OFFLINE },
    ]);
    expect(list.map(isAbsent)).toEqual([false, true]);
  });

  it("is written with a line for every time on air, every gap with its times, and every absent site with the reason", () => {
    const [head, ...rows] = attendanceRows(list, words);
    expect(rows.map((row) => row.length)).toEqual(rows.map(() => head!.length));
    const time = expect.stringMatching(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/);
    expect(rows.map((row) => [row[0], ...row.slice(3)])).toEqual([
      ["a", "onair", time, time, "1:00", ""],
      ["a", "gap", stamp(60_001), stamp(90_001), "0:30", ""],
      ["a", "onair", time, "still", "", ""],
      ["never", "absent", "", "", "", "OFFLINE"],
    ]);
  });
});

describe("CSV", () => {
  it("opens in a spreadsheet as it was meant", () => {
    expect(csv([["会场", 'say "here"', "a,b"], ["=1+1", "@x", 7]])).toBe('\uFEFF会场,"say ""here""","a,b"\r\n\'=1+1,\'@x,7\r\n');
  });

  it("names files without what file systems dislike", () => {
    expect(fileName("考勤", "东湖 01:54", "2026-11-23")).toBe("考勤-东湖-01-54-2026-11-23.csv");
    expect(fileName("../x")).toBe("x.csv");
  });
});

describe("a drill", () => {
  it("puts what is out of reach first, and what is merely in use last", () => {
    const of = (link: Check, camera: Check) => badness(create(DrillResultSchema, { link, camera, microphone: Check.OK, clock: Check.OK }));
    expect([of(Check.FAILED, Check.UNSPECIFIED) > of(Check.OK, Check.FAILED), of(Check.OK, Check.FAILED) > of(Check.OK, Check.BUSY), of(Check.OK, Check.OK)]).toEqual([true, true, 0]);
  });
});

describe("the slots of the wall", () => {
  it("are those of the tiles while nothing is loaded ahead", () => {
    const planner = new SlotPlanner();
    expect(planner.plan(["a", "b"], [], 4)).toEqual({ tiles: [0, 1], ahead: [] });
    expect(planner.plan(["c", "d"], [], 4)).toEqual({ tiles: [0, 1], ahead: [] });
  });

  it("keep what was loaded ahead where it is, and never put two sites into one", () => {
    const planner = new SlotPlanner();
    expect(planner.plan(["a", "b"], ["c", "d"], 4)).toEqual({ tiles: [0, 1], ahead: [{ slot: 2, site: "c" }, { slot: 3, site: "d" }] });
    expect(planner.plan(["c", "d"], ["e", "a"], 4)).toEqual({ tiles: [2, 3], ahead: [{ slot: 0, site: "a" }, { slot: 1, site: "e" }] });
    expect(planner.plan(["e", "a"], ["c"], 4)).toEqual({ tiles: [1, 0], ahead: [{ slot: 2, site: "c" }] });
  });

  it("load ahead only where slots are free", () => {
    expect(new SlotPlanner().plan(["a", "b", "c"], ["d", "e"], 4)).toEqual({ tiles: [0, 1, 2], ahead: [{ slot: 3, site: "d" }] });
    expect(new SlotPlanner().plan(["a", "b", "c"], ["d"], 2)).toEqual({ tiles: [0, 1, -1], ahead: [] });
  });

  it("hold for any walk through pages of any size", () => {
    const planner = new SlotPlanner();
    let seed = 7;
    const random = (below: number): number => ((seed = (seed * 48_271) % 2_147_483_647), seed % below);
    for (let turn = 0; turn < 500; turn += 1) {
      const sites = Array.from({ length: 60 }, (_, at) => `s${(at + random(60)) % 60}`);
      const unique = [...new Set(sites)];
      const visible = unique.slice(0, 1 + random(12));
      const { tiles, ahead } = planner.plan(visible, unique.slice(12, 12 + random(12)), 16);
      const used = [...tiles, ...ahead.map(({ slot }) => slot)];
      expect(new Set(used).size).toBe(used.length);
      expect(Math.max(...used)).toBeLessThan(16);
      expect(Math.min(...used)).toBeGreaterThanOrEqual(0);
    }
  });
});

describe("the offer", () => {
  it("says of a shared screen that it is content, and of nothing else", () => {
    const sdp = "v=0\r\nm=video 9 x 96\r\na=mid:1\r\na=sendonly\r\nm=video 9 x 96\r\na=mid:12\r\n";
    expect(withSlides(sdp, "12")).toBe(sdp.replace("a=mid:12\r\n", "a=mid:12\r\na=content:slides\r\n"));
    expect(withSlides(sdp, undefined)).toBe(sdp);
  });
});

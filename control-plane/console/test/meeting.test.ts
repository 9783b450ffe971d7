import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import {
  ChairCause,
  Fallback,
  FloorRequestSchema,
  FloorState,
  MeetingEventSchema,
  Priority,
  RollCallEntrySchema,
  RollCallResult,
  RollCallSchema,
  StageSchema,
  SummonsReason,
  SummonsSchema,
  SummonsState,
  type Meeting,
  type MeetingEvent,
} from "../src/gen/muster/command/v1/types_pb";
import { Log } from "../src/model/log";
import { isUnsure, withTaken } from "../src/model/chairs";
import { apply, floorOf, mayCallAgain, notOnAir, progress } from "../src/model/meeting";

let seq = 0n;
function event(of: MeetingEvent["event"], atMs = 1_000n): MeetingEvent {
  seq += 1n;
  return create(MeetingEventSchema, { meeting: "m", seq, atMs, actor: "duty", event: of });
}
function convene(...sites: string[]): Meeting {
  seq = 0n;
  return apply(undefined, event({ case: "convened", value: { $typeName: "muster.command.v1.MeetingConvened", title: "t", unit: "WH", chair: "duty", sites, idempotencyKey: "", priority: Priority.ROUTINE, deadlineMs: 0n, endsMs: 0n, fallback: Fallback.NONE, preset: "", schedule: "" } }))!;
}
function summons(site: string, state: SummonsState, reason = SummonsReason.UNSPECIFIED, atMs = 1_000n): MeetingEvent["event"] {
  return { case: "summons", value: { $typeName: "muster.command.v1.SummonsChanged", summons: create(SummonsSchema, { site, state, reason, atMs }) } };
}
function fold(meeting: Meeting, ...events: MeetingEvent["event"][]): Meeting {
  return events.reduce((state, each) => apply(state, event(each)) ?? state, meeting);
}

describe("a meeting", () => {
  it("starts with everyone paged", () => {
    expect(progress(convene("a", "b").summonses)).toEqual([{ state: SummonsState.PAGED, count: 2 }]);
  });

  it("takes no event twice", () => {
    const meeting = convene("a");
    const once = event(summons("a", SummonsState.ON_AIR));
    const after = apply(meeting, once)!;
    expect(apply(after, once)).toBe(after);
  });

  it("leaves what did not change the same object, so that it is not drawn again", () => {
    const meeting = fold(convene("a", "b"), summons("a", SummonsState.RINGING));
    const next = fold(meeting, summons("b", SummonsState.ON_AIR));
    expect(next.summonses[0]).toBe(meeting.summonses[0]);
  });

  it("lists what needs a person first, and who is merely ringing last", () => {
    const meeting = fold(
      convene("ringing", "offline", "declined", "fine", "left"),
      summons("ringing", SummonsState.RINGING),
      summons("offline", SummonsState.UNREACHABLE, SummonsReason.OFFLINE),
      summons("declined", SummonsState.DECLINED),
      summons("fine", SummonsState.ON_AIR),
      summons("left", SummonsState.LEFT),
    );
    expect(notOnAir(meeting.summonses).map(({ site }) => site)).toEqual(["declined", "offline", "left", "ringing"]);
    expect(notOnAir(meeting.summonses).filter(mayCallAgain).map(({ site }) => site)).toEqual(["declined", "offline", "left"]);
  });

  it("ends", () => {
    const ended = fold(convene("a"), { case: "ended", value: { $typeName: "muster.command.v1.MeetingEnded", reason: "" } });
    expect(ended.endedMs).toBe(1_000n);
  });
});

describe("the events of command", () => {
  const $ = "muster.command.v1.";
  const chair = (to: string, before: string, cause: ChairCause): MeetingEvent["event"] => ({ case: "chair", value: { $typeName: `${$}ChairChanged`, chair: to, before, cause } });

  it("add sites once each, called at the time of the event", () => {
    const meeting = fold(convene("a"), summons("a", SummonsState.ON_AIR), { case: "sitesAdded", value: { $typeName: `${$}SitesAdded`, sites: ["a", "b"], unit: "" } });
    expect(meeting.summonses.map(({ site, state }) => [site, state])).toEqual([["a", SummonsState.ON_AIR], ["b", SummonsState.PAGED]]);
    const wider = fold(meeting, { case: "sitesAdded", value: { $typeName: `${$}SitesAdded`, sites: ["c"], unit: "above" } });
    expect([meeting.unit, wider.unit]).toEqual(["WH", "above"]);
  });

  it("keep from whom the chair was taken, as the domain does", () => {
    const { GRANTED, RELEASED, TAKEN_OVER, HANDED_BACK } = ChairCause;
    const lines: [what: string, changes: [string, string, ChairCause][], takenFrom: string][] = [
      ["taken once", [["higher", "duty", TAKEN_OVER]], "duty"],
      ["taken twice", [["higher", "duty", TAKEN_OVER], ["top", "higher", TAKEN_OVER]], "higher"],
      ["and handed back once", [["higher", "duty", TAKEN_OVER], ["top", "higher", TAKEN_OVER], ["higher", "top", HANDED_BACK]], "duty"],
      ["and twice", [["higher", "duty", TAKEN_OVER], ["top", "higher", TAKEN_OVER], ["higher", "top", HANDED_BACK], ["duty", "higher", HANDED_BACK]], ""],
      ["and past one that may have it no more", [["higher", "duty", TAKEN_OVER], ["top", "higher", TAKEN_OVER], ["duty", "top", HANDED_BACK]], ""],
      ["taken to and fro", [["higher", "duty", TAKEN_OVER], ["duty", "higher", TAKEN_OVER], ["higher", "duty", TAKEN_OVER]], "duty"],
      ["to and fro, and handed back", [["higher", "duty", TAKEN_OVER], ["duty", "higher", TAKEN_OVER], ["higher", "duty", TAKEN_OVER], ["duty", "higher", HANDED_BACK]], ""],
      ["given afterwards", [["higher", "duty", TAKEN_OVER], ["top", "higher", TAKEN_OVER], ["other", "top", GRANTED]], ""],
      ["released afterwards", [["higher", "duty", TAKEN_OVER], ["top", "higher", TAKEN_OVER], ["duty", "top", RELEASED]], ""],
      ["released, and taken again", [["higher", "duty", TAKEN_OVER], ["duty", "higher", RELEASED], ["top", "duty", TAKEN_OVER]], "duty"],
    ];
    for (const [what, changes, takenFrom] of lines) {
      const meeting = fold(convene("a"), ...changes.map((change) => chair(...change)));
      expect([what, meeting.takenFrom, meeting.chair]).toEqual([what, takenFrom, changes[changes.length - 1]![0]]);
      expect([what, isUnsure(meeting)]).toEqual([what, false]);
    }
    const many = Array.from({ length: 40 }, (_, at) => chair(`c${at + 1}`, `c${at}`, ChairCause.TAKEN_OVER));
    const back = Array.from({ length: 16 }, (_, at) => chair(`c${39 - at}`, `c${40 - at}`, ChairCause.HANDED_BACK));
    expect(fold(convene("a"), ...many, ...back.slice(0, 15)).takenFrom).toBe("c24");
    expect(fold(convene("a"), ...many, ...back).takenFrom).toBe("");
  });

  it("know of a snapshot that it names only the last from whom the chair was taken", () => {
    const told = { ...convene("a"), chair: "top", takenFrom: "higher" };
    const once = fold(told, chair("higher", "top", ChairCause.HANDED_BACK));
    expect([once.takenFrom, isUnsure(once)]).toEqual(["", true]);
    const read = { ...once, takenFrom: "duty", taken: undefined };
    expect(withTaken(once, { ...read, seq: once.seq - 1n })).toBeUndefined();
    expect(withTaken(once, { ...read, chair: "top" })).toBeUndefined();
    const sure = withTaken(once, read)!;
    expect([sure.takenFrom, isUnsure(sure)]).toEqual(["duty", false]);
    // The last of them: the snapshot says of nobody, and there is nobody.
    const last = fold(sure, chair("duty", "higher", ChairCause.HANDED_BACK));
    expect(withTaken(last, { ...last, takenFrom: "" } as Meeting)?.takenFrom).toBe("");
  });

  it("keep requests for the chair in order, and drop those taken back", () => {
    const wants = (account: string, withdrawn = false): MeetingEvent["event"] => ({ case: "chairRequested", value: { $typeName: `${$}ChairRequested`, account, withdrawn } });
    expect(fold(convene("a"), wants("x"), wants("y"), wants("x"), wants("y", true)).chairRequests).toEqual(["x"]);
  });

  it("fold a roll call, its entries and its end", () => {
    const rollCall = create(RollCallSchema, { number: 2, entries: [{ site: "a", result: RollCallResult.WAITING }, { site: "b", result: RollCallResult.WAITING }] });
    const started = fold(convene("a", "b"), { case: "rollCallStarted", value: { $typeName: `${$}RollCallStarted`, rollCall } });
    const called = fold(started, { case: "rollCallEntry", value: { $typeName: `${$}RollCallEntryChanged`, entry: create(RollCallEntrySchema, { site: "b", result: RollCallResult.CALLED }) } });
    expect(called.rollCall?.entries.map(({ result }) => result)).toEqual([RollCallResult.WAITING, RollCallResult.CALLED]);
    expect(started.rollCall?.entries[1]?.result).toBe(RollCallResult.WAITING);
    const ended = fold(called, { case: "rollCallEnded", value: { $typeName: `${$}RollCallEnded`, number: 2, endedMs: 5_000n } });
    expect([ended.rollCall?.endedMs, ended.rollCall?.entries.length]).toEqual([5_000n, 2]);
  });

  it("fold lock, end, floor and placement", () => {
    const floor = [create(FloorRequestSchema, { site: "b", state: FloorState.WAITING }), create(FloorRequestSchema, { site: "a", state: FloorState.GRANTED })];
    const meeting = fold(
      convene("a", "b"),
      { case: "lock", value: { $typeName: `${$}LockChanged`, locked: true, desks: [] } },
      { case: "endSet", value: { $typeName: `${$}EndSet`, endsMs: 9_000n } },
      { case: "floor", value: { $typeName: `${$}FloorChanged`, floor } },
      { case: "placed", value: { $typeName: `${$}MeetingPlaced`, before: "r1", placement: { $typeName: `${$}Placement`, relay: "r2", epoch: 2n } } },
    );
    expect([meeting.locked, meeting.endsMs, meeting.placement?.relay]).toEqual([true, 9_000n, "r2"]);
    expect([floorOf(meeting).speaking.map(({ site }) => site), floorOf(meeting).waiting.map(({ site }) => site)]).toEqual([["a"], ["b"]]);
  });

  it("are one line each in the log, and no line twice", () => {
    const log = new Log();
    let meeting = convene("a", "b");
    const happen = (of: MeetingEvent["event"], atMs: bigint): void => {
      const next = event(of, atMs);
      log.event(meeting, next);
      meeting = apply(meeting, next)!;
    };
    const floor = (state: FloorState): MeetingEvent["event"] => ({ case: "floor", value: { $typeName: `${$}FloorChanged`, floor: [create(FloorRequestSchema, { site: "a", state })] } });
    happen(floor(FloorState.WAITING), 1_000n);
    happen(floor(FloorState.WAITING), 1_001n);
    happen(floor(FloorState.GRANTED), 1_002n);
    happen({ case: "lock", value: { $typeName: `${$}LockChanged`, locked: true, desks: [] } }, 1_003n);
    happen(chair("above", "duty", ChairCause.TAKEN_OVER), 1_004n);
    happen(summons("b", SummonsState.LEFT, SummonsReason.HUNG_UP_BY_CHAIR), 1_005n);
    happen({ case: "placed", value: { $typeName: `${$}MeetingPlaced`, before: "", placement: { $typeName: `${$}Placement`, relay: "r1", epoch: 1n } } }, 1_006n);
    expect(log.lines.map(({ kind, sites }) => [kind, sites])).toEqual([
      ["floor_wanted", ["a"]], ["floor_granted", ["a"]], ["locked", []], ["chair_taken", ["above"]], ["hung_up", ["b"]],
    ]);
  });
});

describe("the log", () => {
  it("tells how a floor came to its end: given back, taken, over, withdrawn or refused", () => {
    const request = (site: string, state: FloorState) => create(FloorRequestSchema, { site, state });
    const told = (before: FloorState, actor: string): unknown => {
      const log = new Log();
      const meeting = { ...convene("a"), floor: [request("a", before), request("b", FloorState.WAITING)] };
      log.event(meeting, { ...event({ case: "floor", value: { $typeName: "muster.command.v1.FloorChanged", floor: [request("b", FloorState.WAITING)] } }), actor });
      return log.lines.map(({ kind, sites, actor }) => [kind, sites, actor]);
    };
    expect(told(FloorState.GRANTED, "site:a")).toEqual([["floor_back", ["a"], ""]]);
    expect(told(FloorState.GRANTED, "duty")).toEqual([["floor_taken", ["a"], "duty"]]);
    expect(told(FloorState.GRANTED, "system")).toEqual([["floor_over", ["a"], ""]]);
    expect(told(FloorState.WAITING, "site:a")).toEqual([["floor_withdrawn", ["a"], ""]]);
    expect(told(FloorState.WAITING, "duty")).toEqual([["floor_refused", ["a"], "duty"]]);
  });

  it("writes many arrivals as one line", () => {
    const log = new Log();
    const names = Array.from({ length: 140 }, (_, at) => `s${at}`);
    for (const name of names) log.event(undefined, event(summons(name, SummonsState.ON_AIR)));
    expect(log.lines).toHaveLength(1);
    expect(log.lines[0]?.sites).toHaveLength(140);
  });

  it("says a loss once, and nothing of a site that is on air as before", () => {
    const log = new Log();
    let meeting = fold(convene("a"), summons("a", SummonsState.ON_AIR));
    const later = (of: MeetingEvent["event"], atMs: bigint): void => {
      const next = event(of, atMs);
      log.event(meeting, next);
      meeting = apply(meeting, next)!;
    };
    later(summons("a", SummonsState.ON_AIR, SummonsReason.LINK_LOST, 1_000n), 19_000n);
    later(summons("a", SummonsState.UNREACHABLE, SummonsReason.LINK_LOST, 20_000n), 20_000n);
    later(summons("a", SummonsState.UNREACHABLE, SummonsReason.OFFLINE, 25_000n), 25_000n);
    later(summons("a", SummonsState.ON_AIR, SummonsReason.UNSPECIFIED, 1_000n), 30_000n);
    expect(log.lines.map(({ kind, atMs }) => [kind, atMs])).toEqual([["trouble", 20_000], ["on_air", 30_000]]);
  });

  it("tells a change of the stage by what is different", () => {
    const before = fold(convene("a", "b"), { case: "stage", value: { $typeName: "muster.command.v1.StageChanged", stage: create(StageSchema, { mutedSites: ["a"] }) } });
    const log = new Log();
    log.event(before, event({ case: "stage", value: { $typeName: "muster.command.v1.StageChanged", stage: create(StageSchema, { mutedSites: ["a", "b"], broadcastSite: "a" }) } }));
    expect(log.lines.map(({ kind, sites }) => [kind, sites])).toEqual([["broadcast", ["a"]], ["muted", ["b"]]]);
  });

  it("does not grow without bound", () => {
    const log = new Log();
    for (let at = 0; at < 2_000; at += 1) log.event(undefined, event(summons("a", at % 2 ? SummonsState.ON_AIR : SummonsState.UNREACHABLE, at, BigInt(at * 10_000))));
    expect(log.lines.length).toBe(300);
  });
});

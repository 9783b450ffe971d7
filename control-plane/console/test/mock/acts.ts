// What the mock control plane does with the verbs of a meeting: just enough of each that its event follows.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { ActRequest } from "../../src/gen/muster/command/v1/command_pb";
import {
  ChairCause,
  FloorRequestSchema,
  FloorState,
  PollingSchema,
  RollCallEntrySchema,
  RollCallResult,
  RollCallSchema,
  SummonsReason,
  SummonsState,
  type FloorRequest,
  type Meeting,
  type Polling,
  type RollCallEntry,
} from "../../src/gen/muster/command/v1/types_pb";
import { viewOf } from "../../src/model/rollcall";
import type { MockControlPlane } from "./control-plane";

const $ = "muster.command.v1.";
const now = (): bigint => BigInt(Date.now());

export function act(plane: MockControlPlane, { verb }: ActRequest, actor: string): { seq: bigint; sites: number } {
  const { meeting } = plane;
  if (!meeting) throw new ConnectError("the meeting has ended", Code.FailedPrecondition, { "muster-code": "meeting_ended" });
  switch (verb.case) {
    case "addSites": {
      const sites = plane.resolve(verb.value.selector!).filter((site) => !meeting.summonses.some((known) => known.site === site));
      plane.emit(actor, { case: "sitesAdded", value: { $typeName: `${$}SitesAdded`, sites, unit: "" } });
      sites.forEach((site, at) => plane.page(site, at));
      break;
    }
    case "hangUp":
      for (const site of verb.value.sites) plane.summons(site, SummonsState.LEFT, SummonsReason.HUNG_UP_BY_CHAIR);
      break;
    case "lock":
      plane.emit(actor, { case: "lock", value: { $typeName: `${$}LockChanged`, locked: verb.value.locked, desks: [] } });
      break;
    case "extend": {
      const from = meeting.endsMs > now() ? meeting.endsMs : now();
      plane.emit(actor, { case: "endSet", value: { $typeName: `${$}EndSet`, endsMs: from + BigInt(verb.value.minutes) * 60_000n } });
      break;
    }
    case "requestChair":
      plane.emit(actor, { case: "chairRequested", value: { $typeName: `${$}ChairRequested`, account: actor, withdrawn: verb.value.withdraw } });
      break;
    case "answerChairRequest":
      if (verb.value.granted) chair(plane, actor, verb.value.account, ChairCause.GRANTED);
      else plane.emit(actor, { case: "chairRequested", value: { $typeName: `${$}ChairRequested`, account: verb.value.account, withdrawn: true } });
      break;
    case "releaseChair":
      chair(plane, actor, meeting.convenedBy, ChairCause.RELEASED);
      break;
    case "takeOver":
      chair(plane, actor, actor, ChairCause.TAKEN_OVER);
      break;
    case "handBack":
      chair(plane, actor, meeting.takenFrom, ChairCause.HANDED_BACK);
      break;
    case "setLayout":
      plane.stage({ layout: verb.value.layout });
      break;
    case "setPolling":
      plane.stage({ polling: verb.value.on ? polled(meeting, verb.value.intervalS || 10, verb.value.perPage || 16, 0, verb.value.paused) : undefined });
      break;
    case "turnPage": {
      const was = meeting.stage?.polling;
      if (was) plane.stage({ polling: polled(meeting, was.intervalS, was.perPage, was.page + verb.value.by, was.paused) });
      break;
    }
    case "setVoiceSwitching":
      plane.stage({ voiceSwitching: verb.value.on });
      break;
    case "watchSite":
      plane.stage({ watchedSite: verb.value.site });
      break;
    case "setContent":
      plane.stage({ contentSite: verb.value.site });
      break;
    case "startRollCall":
      startRollCall(plane, actor, verb.value.answerS, verb.value.sites);
      break;
    case "nextRollCall":
      next(plane, verb.value.site);
      break;
    case "acknowledgeRollCall":
      found(plane, verb.value.site, RollCallResult.PRESENT, actor);
      next(plane, "");
      break;
    case "endRollCall":
      plane.emit(actor, { case: "rollCallEnded", value: { $typeName: `${$}RollCallEnded`, number: meeting.rollCall?.number ?? 0, endedMs: now() } });
      break;
    case "grantFloor":
      floor(plane, actor, verb.value.site, FloorState.GRANTED, verb.value.seconds);
      break;
    case "takeFloor":
      floor(plane, actor, verb.value.site, undefined, 0);
      break;
    default:
      throw new ConnectError("no verb", Code.InvalidArgument);
  }
  return { seq: plane.meeting?.seq ?? 0n, sites: 0 };
}

export function floor(plane: MockControlPlane, actor: string, site: string, state: FloorState | undefined, seconds: number): void {
  const was = plane.meeting!.floor;
  const before = was.find((request) => request.site === site);
  const untilMs = seconds ? now() + BigInt(seconds) * 1_000n : 0n;
  const mine = state === undefined ? [] : [create(FloorRequestSchema, { site, state, requestedMs: before?.requestedMs ?? now(), grantedMs: state === FloorState.GRANTED ? now() : 0n, untilMs })];
  const others = was.filter((request) => request.site !== site);
  const at = before ? was.indexOf(before) : others.length;
  const list: FloorRequest[] = [...others.slice(0, at), ...mine, ...others.slice(at)];
  plane.emit(actor, { case: "floor", value: { $typeName: `${$}FloorChanged`, floor: list } });
}

function chair(plane: MockControlPlane, actor: string, to: string, cause: ChairCause): void {
  plane.emit(actor, { case: "chair", value: { $typeName: `${$}ChairChanged`, chair: to, before: plane.meeting!.chair, cause } });
}

function polled(meeting: Meeting, intervalS: number, perPage: number, page: number, paused: boolean): Polling {
  const onAir = meeting.summonses.filter(({ state }) => state === SummonsState.ON_AIR).map(({ site }) => site);
  const pages = Math.max(1, Math.ceil(onAir.length / perPage));
  const at = (page + pages) % pages;
  const of = (number: number): string[] => onAir.slice((number % pages) * perPage, ((number % pages) + 1) * perPage);
  return create(PollingSchema, { intervalS, perPage, page: at, pages, sites: of(at), next: of(at + 1), turnedMs: now(), paused });
}

function startRollCall(plane: MockControlPlane, by: string, answerS: number, chosen: readonly string[]): void {
  const sites = plane.meeting!.summonses.map(({ site }) => site).filter((site) => chosen.length === 0 || chosen.includes(site));
  const entries = plane.directory.sort(sites).map((site) => create(RollCallEntrySchema, { site, result: RollCallResult.WAITING }));
  const rollCall = create(RollCallSchema, { number: (plane.meeting!.rollCall?.number ?? 0) + 1, by, startedMs: now(), answerS, entries });
  plane.emit(by, { case: "rollCallStarted", value: { $typeName: `${$}RollCallStarted`, rollCall } });
  next(plane, "");
}

function entry(plane: MockControlPlane, site: string, change: Partial<RollCallEntry>): void {
  const was = plane.meeting!.rollCall!.entries.find((known) => known.site === site);
  const changed: RollCallEntry = { ...(was ?? create(RollCallEntrySchema)), ...change, site };
  plane.emit("system", { case: "rollCallEntry", value: { $typeName: `${$}RollCallEntryChanged`, entry: changed } });
}

function found(plane: MockControlPlane, site: string, result: RollCallResult, by: string): void {
  entry(plane, site, { result, acknowledgedBy: by, seenUp: true, seenDown: true, answeredMs: now() });
}

/** Goes on; sites that are not on air are unreachable at once. */
function next(plane: MockControlPlane, wanted: string): void {
  const call = plane.meeting?.rollCall;
  if (!call || call.endedMs) return;
  const { current, next } = viewOf(call);
  if (current) entry(plane, current.site, { result: RollCallResult.ABSENT, seenUp: true, seenDown: true, answeredMs: now() });
  for (const { site } of wanted ? next.filter(({ site }) => site === wanted) : next) {
    const summons = plane.meeting!.summonses.find((known) => known.site === site);
    if (summons?.state === SummonsState.ON_AIR) return entry(plane, site, { result: RollCallResult.CALLED, calledMs: now() });
    entry(plane, site, { result: RollCallResult.UNREACHABLE, reason: summons?.reason ?? SummonsReason.UNSPECIFIED, answeredMs: now() });
  }
  plane.emit("system", { case: "rollCallEnded", value: { $typeName: `${$}RollCallEnded`, number: call.number, endedMs: now() } });
}

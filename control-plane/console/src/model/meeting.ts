// The state of one meeting as the console sees it: folded from a snapshot and the numbered events after it. Pure
// functions over immutable values. It decides what needs a person, and in which order; it draws nothing. From whom the
// chair was taken is in chairs.ts.

import { create } from "@bufbuild/protobuf";
import {
  FloorState,
  MeetingSchema,
  RollCallSchema,
  StageSchema,
  SummonsReason,
  SummonsSchema,
  SummonsState,
  type FloorRequest,
  type Meeting,
  type MeetingEvent,
  type RollCall,
  type RollCallEntry,
  type Summons,
} from "../gen/muster/command/v1/types_pb";
import { chairChanged } from "./chairs";

/** The meeting after the event; the same value if the event is old or of another meeting. */
export function apply(meeting: Meeting | undefined, event: MeetingEvent): Meeting | undefined {
  if (event.event.case === "convened") return convened(event);
  if (!meeting || meeting.id !== event.meeting || event.seq <= meeting.seq) return meeting;
  return { ...meeting, ...changed(meeting, event), seq: event.seq };
}

/** What an event changes of its meeting. */
function changed(meeting: Meeting, { event, atMs }: MeetingEvent): Partial<Meeting> {
  switch (event.case) {
    case "summons":
      return event.value.summons ? { summonses: replace(meeting.summonses, event.value.summons) } : {};
    case "sitesAdded":
      return { summonses: added(meeting.summonses, event.value.sites, atMs), unit: event.value.unit || meeting.unit };
    case "stage":
      return { stage: event.value.stage ?? create(StageSchema) };
    case "chair":
      return chairChanged(meeting, event.value);
    case "chairRequested": {
      const others = meeting.chairRequests.filter((account) => account !== event.value.account);
      return { chairRequests: event.value.withdrawn ? others : [...others, event.value.account] };
    }
    case "lock":
      return { locked: event.value.locked };
    case "endSet":
      return { endsMs: event.value.endsMs };
    case "floor":
      return { floor: event.value.floor };
    case "rollCallStarted":
      return event.value.rollCall ? { rollCall: event.value.rollCall } : {};
    case "rollCallEntry":
      return event.value.entry && meeting.rollCall ? { rollCall: withEntry(meeting.rollCall, event.value.entry) } : {};
    case "rollCallEnded":
      return { rollCall: { ...(meeting.rollCall ?? create(RollCallSchema, { number: event.value.number })), endedMs: event.value.endedMs || atMs } };
    case "placed":
      return event.value.placement ? { placement: event.value.placement } : {};
    case "ended":
      return { endedMs: atMs };
    default:
      return {};
  }
}

function convened(event: MeetingEvent): Meeting | undefined {
  if (event.event.case !== "convened") return undefined;
  const { title, chair, unit, sites, priority, deadlineMs, endsMs, fallback, preset, schedule } = event.event.value;
  return create(MeetingSchema, {
    id: event.meeting,
    title,
    chair,
    convenedBy: chair,
    unit,
    startedMs: event.atMs,
    seq: event.seq,
    priority,
    deadlineMs,
    endsMs,
    fallback,
    preset,
    schedule,
    stage: create(StageSchema),
    summonses: sites.map((site) => paged(site, event.atMs)),
  });
}

const paged = (site: string, atMs: bigint): Summons =>
  create(SummonsSchema, { site, state: SummonsState.PAGED, atMs, pagedMs: atMs });

function added(list: readonly Summons[], sites: readonly string[], atMs: bigint): Summons[] {
  const known = new Set(list.map(({ site }) => site));
  return [...list, ...sites.filter((site) => !known.has(site)).map((site) => paged(site, atMs))];
}

function replace(list: readonly Summons[], changed: Summons): Summons[] {
  const at = list.findIndex((summons) => summons.site === changed.site);
  if (at < 0) return [...list, changed];
  const next = list.slice();
  next[at] = changed;
  return next;
}

function withEntry(call: RollCall, entry: RollCallEntry): RollCall {
  const at = call.entries.findIndex(({ site }) => site === entry.site);
  const entries = call.entries.slice();
  if (at < 0) entries.push(entry);
  else entries[at] = entry;
  return { ...call, entries };
}

export const isRunning = (meeting: Meeting | undefined): meeting is Meeting => meeting !== undefined && !meeting.endedMs;

/** The sites that have the floor, and those that wait for it, each in order. */
export function floorOf(meeting: Meeting | undefined): { speaking: FloorRequest[]; waiting: FloorRequest[] } {
  const floor = meeting?.floor ?? [];
  return {
    speaking: floor.filter(({ state }) => state === FloorState.GRANTED),
    waiting: floor.filter(({ state }) => state !== FloorState.GRANTED),
  };
}

/** How a summons is shown: the five marks of the console. */
export type Mark = "on_air" | "ringing" | "attention" | "unreachable" | "idle";

export function markOf(summons: Summons): Mark {
  switch (summons.state) {
    case SummonsState.ON_AIR:
      return "on_air";
    case SummonsState.UNREACHABLE:
      return "unreachable";
    case SummonsState.DECLINED:
    case SummonsState.TIMED_OUT:
    case SummonsState.REFUSED:
      return "attention";
    case SummonsState.LEFT:
      return "idle";
    default:
      return "ringing";
  }
}

const WORST: Record<Mark, number> = { unreachable: 1, attention: 0, idle: 2, ringing: 3, on_air: 4 };

/** Those not on air, what needs a person first; within that the one that waits longest. */
export function notOnAir(summonses: readonly Summons[]): Summons[] {
  return summonses
    .filter((summons) => summons.state !== SummonsState.ON_AIR)
    .sort(
      (a, b) =>
        WORST[markOf(a)] - WORST[markOf(b)] || Number(a.atMs - b.atMs) || (a.site < b.site ? -1 : 1),
    );
}

/** Those that ended without being on air: calling again is of use. One that a higher meeting holds comes back by itself. */
export function mayCallAgain(summons: Summons): boolean {
  return markOf(summons) !== "on_air" && markOf(summons) !== "ringing" && summons.reason !== SummonsReason.IN_OTHER_MEETING;
}

export type Progress = { state: SummonsState; count: number }[];

/** How many are at which step, in the order of the steps. */
export function progress(summonses: readonly Summons[]): Progress {
  const counts = new Map<SummonsState, number>();
  for (const { state } of summonses) counts.set(state, (counts.get(state) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => a - b).map(([state, count]) => ({ state, count }));
}

const CAMERAS: ReadonlySet<SummonsReason> = new Set([
  SummonsReason.CAMERA_BUSY, SummonsReason.CAMERA_MISSING, SummonsReason.CAMERA_SILENT, SummonsReason.CAMERA_REFUSED, SummonsReason.CAMERA_UNREACHABLE,
  SummonsReason.CAMERA_FORMAT, SummonsReason.CAMERA_DENIED, SummonsReason.PAGE_CLOSED,
]);

/** Whether it says what is wrong with the site's camera. */
export function isCameras(reason: SummonsReason): boolean {
  return CAMERAS.has(reason);
}

/** Since when what is shown holds: the reason's time where it is known, else the state's. */
export function sinceMs(summons: Summons): number {
  return Number(summons.reasonSinceMs || summons.atMs);
}

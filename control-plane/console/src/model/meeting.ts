// The state of one meeting as the console sees it: folded from a snapshot and the numbered events after it. Pure
// functions over immutable values. It decides what needs a person, and in which order; it draws nothing.

import { create } from "@bufbuild/protobuf";
import {
  MeetingSchema,
  StageSchema,
  SummonsReason,
  SummonsSchema,
  SummonsState,
  type Meeting,
  type MeetingEvent,
  type Summons,
} from "../gen/muster/command/v1/types_pb";

/** The meeting after the event; the same value if the event is old or of another meeting. */
export function apply(meeting: Meeting | undefined, event: MeetingEvent): Meeting | undefined {
  if (event.event.case === "convened") return convened(event);
  if (!meeting || meeting.id !== event.meeting || event.seq <= meeting.seq) return meeting;
  const next: Meeting = { ...meeting, seq: event.seq };
  switch (event.event.case) {
    case "summons": {
      const changed = event.event.value.summons;
      if (changed) next.summonses = replace(meeting.summonses, changed);
      return next;
    }
    case "stage":
      next.stage = event.event.value.stage ?? create(StageSchema);
      return next;
    case "ended":
      next.endedMs = event.atMs;
      return next;
    default:
      return next;
  }
}

function convened(event: MeetingEvent): Meeting | undefined {
  if (event.event.case !== "convened") return undefined;
  const { title, chair, unit, sites } = event.event.value;
  return create(MeetingSchema, {
    id: event.meeting,
    title,
    chair,
    unit,
    startedMs: event.atMs,
    seq: event.seq,
    stage: create(StageSchema),
    summonses: sites.map((site) =>
      create(SummonsSchema, { site, state: SummonsState.PAGED, atMs: event.atMs, pagedMs: event.atMs }),
    ),
  });
}

function replace(list: readonly Summons[], changed: Summons): Summons[] {
  const at = list.findIndex((summons) => summons.site === changed.site);
  if (at < 0) return [...list, changed];
  const next = list.slice();
  next[at] = changed;
  return next;
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

/** Those that ended without being on air: calling again is of use. */
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

/** Since when what is shown holds: the reason's time where it is known, else the state's. */
export function sinceMs(summons: Summons): number {
  return Number(summons.reasonSinceMs || summons.atMs);
}

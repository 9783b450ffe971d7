// The log beside the wall: one line for what a dispatcher would write down. Lines of the same kind within two seconds
// join into one with a count, because 140 sites coming on air are one thing that happened. It holds the newest 300.

import {
  ChairCause,
  FloorState,
  RollCallResult,
  SummonsReason,
  SummonsState,
  type FloorRequest,
  type Meeting,
  type MeetingEvent,
  type Stage,
  type Summons,
} from "../gen/muster/command/v1/types_pb";
import { isCameras, markOf } from "./meeting";

export type LogKind =
  | "convened"
  | "ended"
  | "on_air"
  | "trouble"
  | "no_picture"
  | "called_away"
  | "left"
  | "called_again"
  | "broadcast"
  | "broadcast_off"
  | "muted"
  | "unmuted"
  | "hung_up"
  | "added"
  | "chair_granted"
  | "chair_released"
  | "chair_taken"
  | "chair_back"
  | "chair_requested"
  | "locked"
  | "unlocked"
  | "end_set"
  | "floor_wanted"
  | "floor_granted"
  | "floor_back"
  | "floor_taken"
  | "floor_over"
  | "floor_withdrawn"
  | "floor_refused"
  | "roll_call"
  | "roll_call_end"
  | "roll_present"
  | "roll_missing"
  | "placed"
  | "polling"
  | "polling_off"
  | "voice"
  | "voice_off"
  | "layout"
  | "content"
  | "content_off";

export interface LogLine {
  key: number;
  atMs: number;
  kind: LogKind;
  /** Sites; an account for what concerns the chair; the new end in ms for `end_set`. */
  sites: string[];
  actor: string;
}

const CHAIR: Record<ChairCause, LogKind> = {
  [ChairCause.UNSPECIFIED]: "chair_granted",
  [ChairCause.GRANTED]: "chair_granted",
  [ChairCause.RELEASED]: "chair_released",
  [ChairCause.TAKEN_OVER]: "chair_taken",
  [ChairCause.HANDED_BACK]: "chair_back",
};
/** Acts of a person that are never the same act twice. */
const APART: ReadonlySet<LogKind> = new Set(["broadcast", "chair_taken", "chair_back", "locked", "unlocked", "end_set", "roll_call", "roll_call_end"]);

/** Who no longer has the floor or wants it: given back by the site, taken by a person, or its time is over. */
function floorGone(site: string, state: FloorState, actor: string): LogKind {
  if (state !== FloorState.GRANTED) return actor === `site:${site}` || isMachine(actor) ? "floor_withdrawn" : "floor_refused";
  return actor === `site:${site}` ? "floor_back" : isMachine(actor) ? "floor_over" : "floor_taken";
}
const isMachine = (actor: string): boolean => actor === "" || actor === "system" || actor.includes(":");

const MOST = 300;
const JOIN_MS = 2_000;

export class Log {
  private next = 0;
  /** Newest last. */
  lines: LogLine[] = [];

  /** Starts from a snapshot, which has no events: what can be known from the times in it. */
  static from(meeting: Meeting): Log {
    const log = new Log();
    log.add(Number(meeting.startedMs), "convened", meeting.summonses.map((summons) => summons.site), meeting.chair);
    for (const summons of [...meeting.summonses].sort((a, b) => Number(a.atMs - b.atMs))) log.summons(Number(summons.atMs), summons, undefined);
    return log;
  }

  event(before: Meeting | undefined, event: MeetingEvent): void {
    const at = Number(event.atMs);
    switch (event.event.case) {
      case "convened":
        return this.add(at, "convened", event.event.value.sites, event.actor);
      case "ended":
        return this.add(at, "ended", [], event.actor);
      case "stage":
        return this.stage(at, event.actor, before?.stage, event.event.value.stage);
      case "summons": {
        const now = event.event.value.summons;
        if (now) this.summons(at, now, before?.summonses.find((summons) => summons.site === now.site));
        return;
      }
      default:
        return this.command(at, before, event);
    }
  }

  private command(at: number, before: Meeting | undefined, { actor, event }: MeetingEvent): void {
    switch (event.case) {
      case "sitesAdded":
        return this.add(at, "added", event.value.sites, actor);
      case "chair":
        return this.add(at, CHAIR[event.value.cause], [event.value.chair], actor);
      case "chairRequested":
        return event.value.withdrawn ? undefined : this.add(at, "chair_requested", [event.value.account], "");
      case "lock":
        return this.add(at, event.value.locked ? "locked" : "unlocked", [], actor);
      case "endSet":
        return this.add(at, "end_set", [String(event.value.endsMs)], actor);
      case "floor":
        return this.floor(at, actor, before?.floor ?? [], event.value.floor);
      case "rollCallStarted":
        return this.add(at, "roll_call", event.value.rollCall?.entries.map(({ site }) => site) ?? [], actor);
      case "rollCallEntry": {
        const { site = "", result } = event.value.entry ?? {};
        if (result === RollCallResult.PRESENT) this.add(at, "roll_present", [site], "");
        else if (result !== RollCallResult.CALLED && result !== RollCallResult.WAITING) this.add(at, "roll_missing", [site], "");
        return;
      }
      case "rollCallEnded":
        return this.add(at, "roll_call_end", [], actor);
      case "placed":
        return event.value.before ? this.add(at, "placed", [], "") : undefined;
      default:
        return;
    }
  }

  private floor(at: number, actor: string, before: readonly FloorRequest[], now: readonly FloorRequest[]): void {
    const was = new Map(before.map(({ site, state }) => [site, state]));
    const has = new Set(now.map(({ site }) => site));
    for (const { site, state } of before) if (!has.has(site)) this.add(at, floorGone(site, state, actor), [site], isMachine(actor) ? "" : actor);
    for (const { site, state } of now) {
      if (was.get(site) === state) continue;
      if (state === FloorState.GRANTED) this.add(at, "floor_granted", [site], actor);
      else this.add(at, "floor_wanted", [site], "");
    }
  }

  private summons(at: number, now: Summons, was: Summons | undefined): void {
    const mark = markOf(now);
    // A reason that came to be known better is no second loss.
    if (was && markOf(was) === mark) return;
    if (mark === "on_air") this.add(at, "on_air", [now.site], "");
    else if (isCameras(now.reason) || now.reason === SummonsReason.NO_MEDIA) this.add(at, "no_picture", [now.site], "");
    else if (now.reason === SummonsReason.IN_OTHER_MEETING) this.add(at, "called_away", [now.site], "");
    else if (mark === "unreachable" || mark === "attention") this.add(at, "trouble", [now.site], "");
    else if (now.reason === SummonsReason.HUNG_UP_BY_CHAIR) this.add(at, "hung_up", [now.site], "");
    else if (mark === "idle") this.add(at, "left", [now.site], "");
    else if (now.state === SummonsState.PAGED && was) this.add(at, "called_again", [now.site], "");
  }

  private stage(at: number, actor: string, was: Stage | undefined, now: Stage | undefined): void {
    const before = was?.broadcastSite ?? "";
    const after = now?.broadcastSite ?? "";
    if (before !== after) this.add(at, after ? "broadcast" : "broadcast_off", [after || before], actor);
    const mutedBefore = new Set(was?.mutedSites);
    const mutedAfter = new Set(now?.mutedSites);
    const muted = [...mutedAfter].filter((site) => !mutedBefore.has(site));
    const unmuted = [...mutedBefore].filter((site) => !mutedAfter.has(site));
    this.wall(at, actor, was, now);
    if (muted.length) this.add(at, "muted", muted, actor);
    if (unmuted.length) this.add(at, "unmuted", unmuted, actor);
  }

  private wall(at: number, actor: string, was: Stage | undefined, now: Stage | undefined): void {
    if (!was?.polling !== !now?.polling) this.add(at, now?.polling ? "polling" : "polling_off", [], actor);
    if ((was?.voiceSwitching ?? false) !== (now?.voiceSwitching ?? false)) this.add(at, now?.voiceSwitching ? "voice" : "voice_off", [], actor);
    if ((was?.layout ?? 0) !== (now?.layout ?? 0)) this.add(at, "layout", [], actor);
    const [before, after] = [was?.contentSite ?? "", now?.contentSite ?? ""];
    if (before !== after) this.add(at, after ? "content" : "content_off", [after || before], actor);
  }

  private add(atMs: number, kind: LogKind, sites: readonly string[], actor: string): void {
    const last = this.lines[this.lines.length - 1];
    if (last && last.kind === kind && last.actor === actor && atMs - last.atMs < JOIN_MS && !APART.has(kind)) {
      const joined = { ...last, sites: [...new Set([...last.sites, ...sites])] };
      this.lines = [...this.lines.slice(0, -1), joined];
      return;
    }
    this.next += 1;
    this.lines = [...this.lines, { key: this.next, atMs, kind, sites: [...sites], actor }].slice(-MOST);
  }
}

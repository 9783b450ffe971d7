// The log beside the wall: one line for what a dispatcher would write down. Lines of the same kind within two seconds
// join into one with a count, because 140 sites coming on air are one thing that happened. It holds the newest 300.

import {
  SummonsState,
  type Meeting,
  type MeetingEvent,
  type Stage,
  type Summons,
} from "../gen/muster/command/v1/types_pb";
import { markOf } from "./meeting";

export type LogKind =
  | "convened"
  | "ended"
  | "on_air"
  | "trouble"
  | "left"
  | "called_again"
  | "broadcast"
  | "broadcast_off"
  | "muted"
  | "unmuted";

export interface LogLine {
  key: number;
  atMs: number;
  kind: LogKind;
  sites: string[];
  actor: string;
}

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
        return;
    }
  }

  private summons(at: number, now: Summons, was: Summons | undefined): void {
    const mark = markOf(now);
    // A reason that came to be known better is no second loss.
    if (was && markOf(was) === mark) return;
    if (mark === "on_air") this.add(at, "on_air", [now.site], "");
    else if (mark === "unreachable" || mark === "attention") this.add(at, "trouble", [now.site], "");
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
    if (muted.length) this.add(at, "muted", muted, actor);
    if (unmuted.length) this.add(at, "unmuted", unmuted, actor);
  }

  private add(atMs: number, kind: LogKind, sites: readonly string[], actor: string): void {
    const last = this.lines[this.lines.length - 1];
    if (last && last.kind === kind && last.actor === actor && atMs - last.atMs < JOIN_MS && kind !== "broadcast") {
      const joined = { ...last, sites: [...new Set([...last.sites, ...sites])] };
      this.lines = [...this.lines.slice(0, -1), joined];
      return;
    }
    this.next += 1;
    this.lines = [...this.lines, { key: this.next, atMs, kind, sites: [...sites], actor }].slice(-MOST);
  }
}

// What is stored of meetings: those that have ended, a page at a time; the events of a log, a page at a time, in words.
// It holds one page of a log and no more. Whether the log is whole the control plane says (VerifyLog), not this.

import { fromBinary } from "@bufbuild/protobuf";
import type { Client } from "@connectrpc/connect";
import type { Say } from "../i18n";
import { numbered } from "../i18n";
import { UnitEventSchema, type LogService, type UnitEvent, type VerifyLogResponse } from "../gen/muster/command/v1/command_pb";
import { FloorState, Layout, MeetingEventSchema, SummonsReason, type Meeting, type MeetingEvent, type Stage } from "../gen/muster/command/v1/types_pb";
import { failureOf, type Outcome } from "./api";
import { timeOfDay } from "./clock";

type Logs = Client<typeof LogService>;
type Stored = { stream: "meeting"; event: MeetingEvent } | { stream: "unit"; event: UnitEvent };

export interface Page<T> {
  items: readonly T[];
  /** From 0. */
  at: number;
  pages: number;
}

/** The page nearest to the wanted one. */
export function pageOf<T>(all: readonly T[], wanted: number, size: number): Page<T> {
  const pages = Math.max(1, Math.ceil(all.length / size));
  const at = Math.min(Math.max(0, wanted), pages - 1);
  return { items: all.slice(at * size, (at + 1) * size), at, pages };
}

/** Running ones first, then the newest. */
export function inOrder(meetings: readonly Meeting[]): Meeting[] {
  return [...meetings].sort((a, b) => Number(Boolean(a.endedMs)) - Number(Boolean(b.endedMs)) || Number(b.startedMs - a.startedMs));
}

export interface LogPage {
  events: readonly Stored[];
  /** There are more after these. */
  more: boolean;
}

/** Events of a stream after this one, `most` at most. */
export async function readLog(logs: Logs, stream: string, after: bigint, most: number): Promise<Outcome<LogPage>> {
  const events: Stored[] = [];
  const enough = new AbortController();
  try {
    for await (const { payload } of logs.readLog({ stream, after }, { timeoutMs: 20_000, signal: enough.signal })) {
      if (events.length >= most) return { kind: "ok", value: { events, more: true } };
      events.push(stream.startsWith("unit:") ? { stream: "unit", event: fromBinary(UnitEventSchema, payload) } : { stream: "meeting", event: fromBinary(MeetingEventSchema, payload) });
    }
    return { kind: "ok", value: { events, more: false } };
  } catch (error) {
    return failureOf(error);
  } finally {
    enough.abort();
  }
}

/** What became of the chain of a stream, or of all that the reader may read. */
export async function verifyLog(logs: Logs, stream: string): Promise<Outcome<VerifyLogResponse[]>> {
  const lines: VerifyLogResponse[] = [];
  try {
    for await (const line of logs.verifyLog({ stream }, { timeoutMs: 120_000 })) lines.push(line);
    return { kind: "ok", value: lines };
  } catch (error) {
    return failureOf(error);
  }
}

export const hex = (bytes: Uint8Array): string => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

export interface EventWords {
  say: Say;
  name(site: string): string;
}

/** What happened, in words; a site is called by its name. */
export function describe(stored: Stored, words: EventWords): string {
  return stored.stream === "unit" ? ofUnit(stored.event, words) : ofMeeting(stored.event, words);
}

function some(sites: readonly string[], { name, say }: EventWords): string {
  return sites.length > 3 ? say("log.many", { n: sites.length }) : sites.map(name).join(", ");
}

function ofMeeting({ event }: MeetingEvent, words: EventWords): string {
  const { say, name } = words;
  switch (event.case) {
    case "convened":
      return say("log.convened", { n: event.value.sites.length });
    case "sitesAdded":
      return say("log.added", { sites: some(event.value.sites, words) });
    case "summons": {
      const { site = "", state = 0, reason = SummonsReason.UNSPECIFIED } = event.value.summons ?? {};
      return say("event.summons", { site: name(site), state: [say(numbered("summons", state)), reason ? say(numbered("reason", reason)) : ""].filter(Boolean).join(", ") });
    }
    case "stage":
      return say("event.stage", { what: event.value.stage ? stageWords(event.value.stage, words).join("; ") : "" });
    case "ended":
      return [say("log.ended"), event.value.reason].filter(Boolean).join(": ");
    case "chair":
      return say("event.chair", { who: event.value.chair, before: event.value.before, how: say(numbered("chair", event.value.cause)) });
    case "chairRequested":
      return say(event.value.withdrawn ? "event.chair.withdrawn" : "log.chair_requested", { sites: event.value.account });
    case "lock":
      return say(event.value.locked ? "log.locked" : "log.unlocked");
    case "endSet":
      return say("log.end_set", { time: timeOfDay(Number(event.value.endsMs)) });
    case "floor":
      return say("event.floor", { who: floorWords(event.value.floor, words) });
    case "rollCallStarted":
      return say("log.roll_call", { n: event.value.rollCall?.entries.length ?? 0 });
    case "rollCallEntry": {
      const { site = "", result = 0, acknowledgedBy = "" } = event.value.entry ?? {};
      return say("event.roll", { site: name(site), result: [say(numbered("roll", result)), acknowledgedBy.startsWith("site:") ? say("records.site.person") : acknowledgedBy].filter(Boolean).join(", ") });
    }
    case "rollCallEnded":
      return say("log.roll_call_end");
    case "placed":
      return say("event.placed", { relay: event.value.placement?.relay ?? "" });
    default:
      return say("event.unknown");
  }
}

export function floorWords(floor: readonly { site: string; state: FloorState }[], { say, name }: EventWords): string {
  return floor.map(({ site, state }) => `${name(site)} (${say(numbered("floor", state))})`).join(", ") || say("event.nobody");
}

/** What a stage makes everyone see and hear; a plain one is one word. */
export function stageWords(stage: Stage, words: EventWords): string[] {
  const { say, name } = words;
  const list: string[] = [];
  if (stage.broadcastSite) list.push(say("log.broadcast", { sites: name(stage.broadcastSite) }));
  if (stage.watchedSite) list.push(say("event.watched", { site: name(stage.watchedSite) }));
  if (stage.layout !== Layout.LAYOUT_UNSPECIFIED) list.push(say(numbered("layout", stage.layout)));
  if (stage.polling) list.push(say("event.polling", { n: stage.polling.intervalS, page: stage.polling.page + 1, pages: Math.max(1, stage.polling.pages) }));
  if (stage.voiceSwitching) list.push(say("log.voice"));
  if (stage.contentSite) list.push(say("log.content", { sites: name(stage.contentSite) }));
  if (stage.mutedSites.length) list.push(say("log.muted", { sites: some(stage.mutedSites, words) }));
  return list.length ? list : [say("event.stage.plain")];
}

function ofUnit({ event }: UnitEvent, words: EventWords): string {
  if (event.case === undefined) return words.say("event.unknown");
  return [words.say(`event.${event.case}`), unitDetail(event, words)].filter(Boolean).join(": ");
}

function unitDetail(event: UnitEvent["event"], words: EventWords): string {
  switch (event.case) {
    case "imported":
      return words.say("event.imported.n", { added: event.value.unitsAdded + event.value.sitesAdded, changed: event.value.unitsChanged + event.value.sitesChanged });
    case "accountPut":
    case "sessionsRevoked":
      return event.value.account;
    case "roleGranted":
      return `${event.value.account}, ${words.say(numbered("role", event.value.grant?.role ?? 0))}`;
    case "roleRevoked":
      return `${event.value.account}, ${words.say(numbered("role", event.value.role))}`;
    case "presetSaved":
      return event.value.preset?.name ?? "";
    case "drillStarted":
    case "answerPolicy":
      return some(event.value.sites, words);
    case "drillEnded":
      return words.say("plans.drill.ready", { n: event.value.drill?.ready ?? 0, all: event.value.drill?.asked ?? 0 });
    case "reportTaken":
      return event.value.report?.text || event.value.report?.site || "";
    case "secretMade":
    case "secretUsed":
      return event.value.identity;
    default:
      return "";
  }
}

// Attendance and roll calls as tables: the same rows are shown, printed and written as CSV. Pure; the words are handed in.

import type { Attendance, Span } from "../gen/muster/command/v1/command_pb";
import { SummonsReason, type Meeting, type RollCall, type RollCallResult } from "../gen/muster/command/v1/types_pb";
import type { Cells } from "./csv";
import { duration } from "./clock";
import { grouped } from "./rollcall";

export interface Presence {
  site: string;
  /** 0: never on air. */
  firstMs: number;
  /** 0: still on air. */
  lastMs: number;
  totalMs: number;
  /** None: called, and never on air. */
  spans: readonly Span[];
  /** Times between two spans. */
  gaps: { fromMs: number; toMs: number }[];
  /** Why it was not on air at the end, or never. */
  reason: SummonsReason;
}

/** Of all that were called, also of those that were never on air. */
export function presences(list: readonly Attendance[], meeting?: Pick<Meeting, "summonses">): Presence[] {
  const reasons = new Map(meeting?.summonses.map(({ site, reason }) => [site, reason]));
  return list.map(({ site, onAir, totalMs }) => ({
    site,
    firstMs: Number(onAir[0]?.fromMs ?? 0n),
    lastMs: Number(onAir[onAir.length - 1]?.toMs ?? 0n),
    totalMs: Number(totalMs),
    spans: onAir,
    gaps: onAir.slice(1).map((span, at) => ({ fromMs: Number(onAir[at]!.toMs), toMs: Number(span.fromMs) })),
    reason: reasons.get(site) ?? SummonsReason.UNSPECIFIED,
  }));
}

export const isAbsent = ({ spans }: Presence): boolean => spans.length === 0;

/** Local time to the second with its date, as spreadsheets read it. */
export function stamp(ms: number | bigint): string {
  if (!ms) return "";
  const at = new Date(Number(ms));
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export interface Words {
  name(site: string): string;
  unit(site: string): string;
  say(key: "site" | "unit" | "from" | "to" | "still" | "total" | "gaps" | "first" | "what" | "onair" | "gap" | "absent" | "result" | "reason" | "answered" | "by" | "up" | "down" | "yes" | "no"): string;
  result(result: RollCallResult): string;
  reason(reason: SummonsReason): string;
  who(acknowledgedBy: string): string;
}

/** One line for every time that a site was on air, for every gap between two of them, and for who was never there. */
export function attendanceRows(list: readonly Presence[], words: Words): Cells[] {
  const head = ["id", words.say("site"), words.say("unit"), words.say("what"), words.say("from"), words.say("to"), words.say("total"), words.say("reason")];
  const lines = list.flatMap((presence) => {
    const who = [presence.site, words.name(presence.site), words.unit(presence.site)];
    if (isAbsent(presence)) return [[...who, words.say("absent"), "", "", "", words.reason(presence.reason)]];
    return presence.spans.flatMap(({ fromMs, toMs }, at) => {
      const gap = presence.gaps[at - 1];
      const onAir = [...who, words.say("onair"), stamp(fromMs), toMs ? stamp(toMs) : words.say("still"), toMs ? duration(Number(toMs - fromMs)) : "", ""];
      return gap ? [[...who, words.say("gap"), stamp(gap.fromMs), stamp(gap.toMs), duration(gap.toMs - gap.fromMs), ""], onAir] : [onAir];
    });
  });
  return [head, ...lines];
}

export function rollCallRows(call: RollCall, words: Words): Cells[] {
  const head = ["id", words.say("site"), words.say("unit"), words.say("result"), words.say("reason"), words.say("answered"), words.say("by"), words.say("up"), words.say("down")];
  const yes = (seen: boolean): string => words.say(seen ? "yes" : "no");
  const lines = grouped(call).flatMap(({ result, entries }) =>
    entries.map((entry): Cells => [
      entry.site, words.name(entry.site), words.unit(entry.site), words.result(result), words.reason(entry.reason), stamp(entry.answeredMs), words.who(entry.acknowledgedBy),
      ...(entry.calledMs ? [yes(entry.seenUp), yes(entry.seenDown)] : ["", ""]),
    ]),
  );
  return [head, ...lines];
}

// Names as the pages write them: what of a site's name must stay readable in a narrow place, and the title that a
// meeting gets where nobody thought of one. Pure text.

import type { Meeting, Unit } from "../gen/muster/command/v1/types_pb";

export interface NameParts {
  head: string;
  /** The last number in the name with the space before it; empty where there is none. */
  number: string;
  rest: string;
}

export function nameParts(name: string): NameParts {
  const found = /^(.*\D)(\d+)(\D*)$/.exec(name);
  if (!found) return { head: name, number: "", rest: "" };
  const [, before = "", digits = "", rest = ""] = found;
  const head = before.trimEnd();
  return { head, number: before.slice(head.length) + digits, rest };
}

/** "UNIT HH:MM", the title of a meeting that nobody named. */
export function defaultTitle(unit: string, time: string): string {
  return `${unit} ${time}`.trim();
}

/** The title in the reader's language: one that nobody thought of is made of the unit's name there, others stay. */
export function titleOf(meeting: Meeting, units: Iterable<Unit>, name: (unit: Unit) => string): string {
  const found = /^(.+) (\d\d:\d\d)$/.exec(meeting.title);
  if (!found) return meeting.title;
  const [, called = "", time = ""] = found;
  for (const unit of units) if (unit.nameZh === called || unit.nameEn === called) return defaultTitle(name(unit), time);
  return meeting.title;
}

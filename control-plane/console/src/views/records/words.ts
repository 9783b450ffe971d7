// The words of the records in the reader's language, and what saves a table as a file.

import { nameIn, numbered, t } from "../../i18n";
import type { Meeting } from "../../gen/muster/command/v1/types_pb";
import { computed, type Readable } from "../../model/cell";
import { csv, fileName, type Cells } from "../../model/csv";
import type { Desk } from "../../model/desk";
import { titleOf } from "../../model/names";
import { stamp, type Words } from "../../model/records";

export function wordsOf(desk: Desk): Readable<Words> {
  return computed([desk.roster.directory, nameIn, t], (directory, name, say): Words => ({
    name: (site) => name(directory.sites.get(site), site),
    unit: (site) => directory.path(site).map(({ unit }) => name(unit, unit.id)).join(" › "),
    say: (key) => (key === "yes" || key === "no" ? say(`roll.${key}`) : say(`records.${key}`)),
    result: (result) => say(numbered("roll", result)),
    reason: (reason) => say(numbered("reason", reason)),
    who: (by) => (by.startsWith("site:") ? say("records.site.person") : by),
  }));
}

/** Titles of meetings, in the reader's language. */
export function titlesOf(desk: Desk): Readable<(meeting: Meeting) => string> {
  return computed([desk.roster.directory, nameIn], (directory, name) => (meeting: Meeting): string => {
    const units = [...directory.units.values()].map(({ unit }) => unit);
    return titleOf(meeting, units, (unit) => name(unit, unit.id)) || name(directory.units.get(meeting.unit)?.unit, meeting.unit);
  });
}

export function saveCsv(rows: readonly Cells[], what: string, title: string, startedMs: bigint): void {
  const url = URL.createObjectURL(new Blob([csv(rows)], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = fileName(what, title, stamp(startedMs).slice(0, 10));
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

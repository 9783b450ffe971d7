// A roll call as the pages show it: whose turn it is, how far it has come, and what was found, in four groups that are
// never mixed: present, absent, unreachable, broken. Pure functions; who may go on is the control plane's to say.

import { RollCallResult, type RollCall, type RollCallEntry } from "../gen/muster/command/v1/types_pb";

/** The order in which results are told: what needs a person comes first. */
export const RESULTS = [
  RollCallResult.BROKEN,
  RollCallResult.UNREACHABLE,
  RollCallResult.ABSENT,
  RollCallResult.PRESENT,
  RollCallResult.WAITING,
] as const;

export interface RollCallView {
  running: boolean;
  /** The site that is called now. */
  current: RollCallEntry | undefined;
  /** Those that come after it, in calling order. */
  next: RollCallEntry[];
  done: number;
  all: number;
  counts: ReadonlyMap<RollCallResult, number>;
}

export const isOpen = (entry: RollCallEntry): boolean =>
  entry.result === RollCallResult.WAITING || entry.result === RollCallResult.UNSPECIFIED;

export function viewOf(call: RollCall): RollCallView {
  const counts = new Map<RollCallResult, number>();
  let done = 0;
  for (const entry of call.entries) {
    counts.set(entry.result, (counts.get(entry.result) ?? 0) + 1);
    if (!isOpen(entry) && entry.result !== RollCallResult.CALLED) done += 1;
  }
  return {
    running: call.endedMs === 0n,
    current: call.endedMs === 0n ? call.entries.find(({ result }) => result === RollCallResult.CALLED) : undefined,
    next: call.endedMs === 0n ? call.entries.filter(isOpen) : [],
    done,
    all: call.entries.length,
    counts,
  };
}

/** When the time of the called site is over, in ms since the epoch; 0: when the caller goes on. */
export function answerBy(call: RollCall, current: RollCallEntry | undefined): number {
  return call.answerS && current?.calledMs ? Number(current.calledMs) + call.answerS * 1_000 : 0;
}

/** The entries by what was found of them; groups without any are left out. */
export function grouped(call: RollCall): { result: RollCallResult; entries: RollCallEntry[] }[] {
  const of = (result: RollCallResult): RollCallEntry[] =>
    call.entries.filter((entry) => (isOpen(entry) || entry.result === RollCallResult.CALLED ? RollCallResult.WAITING : entry.result) === result);
  return RESULTS.map((result) => ({ result, entries: of(result) })).filter(({ entries }) => entries.length > 0);
}

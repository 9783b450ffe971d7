// The desk for the views below the command page, and a few things that more than one of them asks.

import { getContext, setContext } from "svelte";
import { refusalKey, refusalText, type Key } from "../../i18n";
import type { MarkName } from "../../components/mark";
import type { Presence, Summons } from "../../gen/muster/command/v1/types_pb";
import { computed, type Readable } from "../../model/cell";
import type { Context } from "../../model/commands";
import type { Desk } from "../../model/desk";
import { markOf } from "../../model/meeting";

const KEY = Symbol("desk");
const SITUATION = Symbol("situation");

export type Filter = "all" | "online" | "offline" | "not_on_air";

export function provideDesk(desk: Desk): void {
  setContext(KEY, desk);
}

/** What commands depend on, anew whenever any of it changes. */
export function provideSituation(desk: Desk, open: Context["open"]): Readable<Context> {
  const { meeting, authority, wall, selection, keeper, shared, enlarged } = desk;
  const situation = computed([meeting, authority.may, wall.view, wall.focus, selection.count, keeper.phase, shared, enlarged], (meeting, may): Context => ({
    desk, meeting, may, site: meeting && !meeting.endedMs ? wall.focused() : undefined, open,
  }));
  setContext(SITUATION, situation);
  return situation;
}

export function useSituation(): Readable<Context> {
  return getContext<Readable<Context>>(SITUATION);
}

export function useDesk(): Desk {
  return getContext<Desk>(KEY);
}

/** What stands before a site: how its call went if it was called, else whether it is there. */
export function siteMark(presence: Presence | undefined, summons: Summons | undefined): MarkName {
  if (summons) return markOf(summons);
  return presence?.online ? "online" : "offline";
}

export function failureText(
  failure: import("../../model/api").Failure,
  say: (key: Key) => string,
): string {
  if (failure.kind === "signed_out") return say("error.signed_out");
  // A server that answers that it cannot now (its store is away, say) has a word for it.
  if (failure.kind === "unreachable" && !refusalKey(failure.code)) return say("error.unreachable");
  return refusalText(failure, say);
}

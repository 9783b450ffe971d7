// The one shape of a command, and the few questions about a situation that more than one family of commands asks.

import { isRunning } from "../meeting";
import type { Meeting, Summons } from "../../gen/muster/command/v1/types_pb";
import type { Action, May } from "../authority";
import type { Desk } from "../desk";

export type Panel = "convene" | "plans" | "reports" | "records" | "accounts" | "keys" | "roll_call" | "site_link";

export interface Context {
  desk: Desk;
  meeting: Meeting | undefined;
  may: May;
  /** The site that is meant: the one with the keyboard, or whose menu is open. */
  site: string | undefined;
  open(panel: Panel, site?: string): void;
}

export interface Command {
  id: string;
  /** Key of its words is `cmd.` and this, or of the turned-round words where it is `on`; without it the id. */
  words?: string;
  /** Of these words the reader's language has others while `on`. */
  on?: (at: Context) => boolean;
  action?: Action;
  /** Needs a site. */
  site?: boolean;
  /** Of those that need a site: means something without a meeting too. */
  anywhere?: boolean;
  /** As `KeyboardEvent.key`, lower case; `Shift+` before it. Of one command only. */
  key?: string;
  /** Letters by which it is found too: English, and how the Chinese is typed. */
  alias: string;
  /** Wants a second press. */
  danger?: boolean | ((at: Context) => boolean);
  fits(at: Context): boolean;
  run(at: Context): void;
}

export const live = ({ meeting }: Context): boolean => isRunning(meeting);
export const called = ({ meeting, site }: Context): Summons | undefined => meeting?.summonses.find((summons) => summons.site === site);
export const inMeeting = (at: Context): boolean => live(at) && called(at) !== undefined;
export const rollCalls = ({ meeting }: Context): boolean => isRunning(meeting) && meeting.rollCall !== undefined && !meeting.rollCall.endedMs;
/** Whether the desk's own leg is in the meeting. */
export const inside = ({ desk }: Context): boolean => desk.keeper.phase.get().kind === "in";
/** Whether it is in none. */
export const outside = ({ desk }: Context): boolean => desk.keeper.phase.get().kind === "out";

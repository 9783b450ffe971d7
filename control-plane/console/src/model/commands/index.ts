// Every verb of a dispatcher in one table: by it the palette, the keys, the buttons and the menu of a tile say and do the
// same. A command is shown where the person may do it and it means something now; the control plane decides all the
// same. It knows nothing of pages: what opens a panel is handed in. The verbs themselves are in a module a family.

import { CHAIR } from "./chair";
import { DESK } from "./desk";
import { MEETING } from "./meeting";
import { ROLLCALL } from "./rollcall";
import type { Command, Context } from "./shape";
import { SITE } from "./site";
import { LAYOUT, STAGE } from "./stage";

export { allMuted } from "./meeting";
export type { Command, Context, Panel } from "./shape";

export const COMMANDS: readonly Command[] = [...SITE, ...MEETING, ...ROLLCALL, ...STAGE, ...CHAIR, ...LAYOUT, ...DESK];

export function byId(id: string): Command {
  return COMMANDS.find((command) => command.id === id)!;
}

/** Whether the command is to be shown: the person may, and it means something now. */
export function shown(command: Command, at: Context): boolean {
  if (command.action && !at.may(command.action)) return false;
  if (command.site && at.site === undefined) return false;
  return command.fits(at);
}

/** Key of the words of a command as things are. */
export function wordsOf(command: Command, at: Context): string {
  return `cmd.${command.words ?? command.id}${command.on?.(at) ? ".off" : ""}`;
}

export const isDanger = (command: Command, at: Context): boolean =>
  typeof command.danger === "function" ? command.danger(at) : (command.danger ?? false);

/** What is armed when a dangerous one is pressed: the same command for another site is another thing. */
export const armedAs = (command: Command, at: Context): string => `${command.id} ${command.site ? at.site : ""}`;

/** Carries it out; of a dangerous one the first press only arms. True if it was carried out. */
export function perform(command: Command, at: Context): boolean {
  if (!shown(command, at)) return false;
  if (isDanger(command, at) && !at.desk.arming.press(armedAs(command, at))) return false;
  at.desk.arming.disarm();
  command.run(at);
  return true;
}

/** The command of a key press; of several the first that is to be shown. */
export function ofKey(key: string, shift: boolean, at: Context): Command | undefined {
  const pressed = `${shift && key.length === 1 && key.toLowerCase() !== key.toUpperCase() ? "shift+" : ""}${key.toLowerCase()}`;
  return COMMANDS.find((command) => command.key === pressed && shown(command, at));
}

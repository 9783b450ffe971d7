// What the palette finds: verbs, sites, presets and units for a few typed words, best first. A word may be of the verb
// and the next of the site ("broadcast 11", "广播 花山"): then the two are found together. Pure.

import type { Preset } from "../gen/muster/command/v1/command_pb";
import { COMMANDS, shown, type Command, type Context } from "./commands";
import type { Directory } from "./directory";
import type { Meeting } from "../gen/muster/command/v1/types_pb";

export type Found =
  | { kind: "command"; command: Command; site: string | undefined }
  /** A verb that needs a site: choosing it asks for one. */
  | { kind: "verb"; command: Command }
  | { kind: "site"; site: string }
  | { kind: "unit"; unit: string }
  | { kind: "preset"; preset: Preset }
  /** Another meeting that runs. */
  | { kind: "meeting"; meeting: Meeting; title: string };

export interface PaletteInput {
  query: string;
  at: Context;
  directory: Directory;
  presets: readonly Preset[];
  /** The words of a command in the reader's language. */
  say(command: Command): string;
  /** The meetings that run, with their titles. */
  meetings?: readonly { meeting: Meeting; title: string }[];
  /** The verb that is waiting for its site. */
  verb: Command | undefined;
}

const MOST_SITES = 8;
const MOST = 14;

const split = (query: string): string[] => query.trim().toLowerCase().split(/\s+/).filter(Boolean);

function commandScore(words: string, alias: string, token: string): number {
  const text = words.toLowerCase();
  if (text.startsWith(token)) return 3;
  if (alias.split(" ").some((part) => part.startsWith(token))) return 2;
  return text.includes(token) ? 1 : 0;
}

function fitsWell(command: Command, tokens: readonly string[], say: PaletteInput["say"]): number {
  let sum = 0;
  for (const token of tokens) {
    const score = commandScore(say(command), command.alias, token);
    if (score === 0) return 0;
    sum += score;
  }
  return sum;
}

function sitesOf({ directory, at }: PaletteInput, tokens: readonly string[]): string[] {
  if (tokens.length === 0) return [];
  const sets = tokens.map((token) => directory.search(token));
  const inMeeting = new Set(at.meeting?.summonses.map(({ site }) => site));
  const all = directory.order.filter((site) => sets.every((set) => set.has(site)));
  return [...all.filter((site) => inMeeting.has(site)), ...all.filter((site) => !inMeeting.has(site))];
}

export function find(input: PaletteInput): Found[] {
  const { verb } = input;
  const tokens = split(input.query);
  if (verb) return forVerb(input, verb, tokens);
  const sites = sitesOf(input, tokens).slice(0, MOST_SITES).map((site): Found => ({ kind: "site", site }));
  const list = [...commands(input, tokens), ...together(input, tokens), ...presets(input, tokens), ...meetings(input, tokens)];
  const units = tokens.length ? [...input.directory.units.values()].filter(({ unit, folded }) => !folded && tokens.every((token) => `${unit.nameZh} ${unit.nameEn}`.toLowerCase().includes(token))).slice(0, 3).map(({ unit }): Found => ({ kind: "unit", unit: unit.id })) : [];
  return [...list, ...units, ...sites].slice(0, MOST);
}

function commands({ at, say }: PaletteInput, tokens: readonly string[]): Found[] {
  const scored = COMMANDS.map((command) => ({ command, score: tokens.length ? fitsWell(command, tokens, say) : 1 })).filter(({ score }) => score > 0);
  scored.sort((a, b) => b.score - a.score);
  return scored.flatMap(({ command }): Found[] => {
    if (shown(command, at)) return [{ kind: "command", command, site: at.site }];
    const meant = command.anywhere || (at.meeting !== undefined && !at.meeting.endedMs);
    return command.site && at.site === undefined && meant && (!command.action || at.may(command.action)) ? [{ kind: "verb", command }] : [];
  });
}

/** The first words name a verb, the others a site. */
function together(input: PaletteInput, tokens: readonly string[]): Found[] {
  const { at, say } = input;
  for (let cut = tokens.length - 1; cut > 0; cut -= 1) {
    const verbs = COMMANDS.filter((command) => command.site && fitsWell(command, tokens.slice(0, cut), say) > 0);
    if (verbs.length === 0) continue;
    const sites = sitesOf(input, tokens.slice(cut)).slice(0, MOST_SITES);
    const found = verbs.flatMap((command) => sites.filter((site) => shown(command, { ...at, site })).map((site): Found => ({ kind: "command", command, site })));
    if (found.length > 0) return found;
  }
  return [];
}

function forVerb(input: PaletteInput, command: Command, tokens: readonly string[]): Found[] {
  const usual = command.anywhere ? input.directory.order : (input.at.meeting?.summonses.map(({ site }) => site) ?? []);
  const all = tokens.length ? sitesOf(input, tokens) : usual;
  return input.directory
    .sort(all)
    .filter((site) => shown(command, { ...input.at, site }))
    .slice(0, MOST)
    .map((site) => ({ kind: "command", command, site }));
}

function meetings({ at, meetings }: PaletteInput, tokens: readonly string[]): Found[] {
  return (meetings ?? [])
    .filter(({ meeting, title }) => meeting.id !== at.meeting?.id && tokens.every((token) => title.toLowerCase().includes(token)))
    .slice(0, 5)
    .map((found) => ({ kind: "meeting", ...found }));
}

function presets({ at, presets }: PaletteInput, tokens: readonly string[]): Found[] {
  if (!at.may("convene")) return [];
  return presets
    .filter(({ name, title }) => tokens.every((token) => `${name} ${title}`.toLowerCase().includes(token)))
    .slice(0, 5)
    .map((preset) => ({ kind: "preset", preset }));
}

// Every verb of a dispatcher in one table: by it the palette, the keys, the buttons and the menu of a tile say and do the
// same. A command is shown where the person may do it and it means something now; the control plane decides all the
// same. It knows nothing of pages: what opens a panel is handed in.

import { FloorState, Layout, type Meeting } from "../gen/muster/command/v1/types_pb";
import type { Action, May } from "./authority";
import type { Desk } from "./desk";
import { floorOf, isRunning, mayCallAgain, notOnAir } from "./meeting";
import { viewOf } from "./rollcall";
import { EXTEND_MINUTES } from "./verbs";
import { LAYOUTS } from "./wall";

export type Panel = "convene" | "plans" | "records" | "accounts" | "keys" | "roll_call";

export interface Context {
  desk: Desk;
  meeting: Meeting | undefined;
  may: May;
  /** The site that is meant: the one with the keyboard, or whose menu is open. */
  site: string | undefined;
  open(panel: Panel): void;
}

export interface Command {
  id: string;
  /** Key of its words is `cmd.` and this, or of the turned-round words where it is `on`. */
  words: string;
  /** Of these words the reader's language has others while `on`. */
  on?: (at: Context) => boolean;
  action?: Action;
  /** Needs a site. */
  site?: boolean;
  /** As `KeyboardEvent.key`, lower case; `Shift+` before it. */
  key?: string;
  /** Letters by which it is found too: English, and how the Chinese is typed. */
  alias: string;
  /** Wants a second press. */
  danger?: boolean | ((at: Context) => boolean);
  fits(at: Context): boolean;
  run(at: Context): void;
}

const live = ({ meeting }: Context): boolean => isRunning(meeting);
const idle = ({ meeting }: Context): boolean => !isRunning(meeting);
const called = (at: Context) => at.meeting?.summonses.find(({ site }) => site === at.site);
const inMeeting = (at: Context): boolean => live(at) && called(at) !== undefined;
const muted = (at: Context): boolean => at.meeting?.stage?.mutedSites.includes(at.site ?? "") ?? false;
const rollCalls = ({ meeting }: Context): boolean => isRunning(meeting) && meeting.rollCall !== undefined && !meeting.rollCall.endedMs;
const inside = ({ desk }: Context): boolean => desk.keeper.phase.get().kind === "in";
const floorStateOf = (at: Context) => at.meeting?.floor.find(({ site }) => site === at.site)?.state;

export function allMuted(meeting: Meeting | undefined): boolean {
  const quiet = new Set(meeting?.stage?.mutedSites);
  return meeting !== undefined && meeting.summonses.length > 0 && meeting.summonses.every(({ site }) => quiet.has(site));
}

/** The chair's large picture is a thing of the meeting; anybody else's is their own. */
function watched({ desk, meeting, site }: Context): boolean {
  return (desk.isChair() ? meeting?.stage?.watchedSite : desk.enlarged.get()) === site;
}
function watch(at: Context): void {
  const site = watched(at) ? "" : at.site!;
  if (at.desk.isChair()) void at.desk.verbs.watchSite(site);
  else at.desk.enlarged.set(site || undefined);
}

const BEFORE_MEETING: readonly Command[] = [
  { id: "convene", words: "convene", action: "convene", alias: "convene call zhaoji zj", fits: (at) => idle(at) && at.desk.selection.count.get() > 0, run: (at) => at.open("convene") },
  { id: "plans", words: "plans", key: "o", alias: "presets schedules drills plans yuan dingshi yanlian yushe ys", fits: () => true, run: (at) => at.open("plans") },
  { id: "drill", words: "drill", action: "drill", alias: "drill silent check jingmo jiancha jc yanlian", fits: (at) => at.desk.selection.count.get() > 0, run: (at) => at.open("plans") },
  { id: "accounts", words: "accounts", action: "manage_accounts", alias: "accounts roles delegate zhanghao quanxian shouquan", fits: () => true, run: (at) => at.open("accounts") },
  { id: "records", words: "records", key: "t", alias: "attendance records roll call table csv export print kaoqin jilu daochu dayin", fits: (at) => at.meeting !== undefined, run: (at) => at.open("records") },
  { id: "keys", words: "keys", key: "?", alias: "keys help shortcuts bangzhu kuaijiejian", fits: () => true, run: (at) => at.open("keys") },
];

const CHAIR: readonly Command[] = [
  { id: "take_over", words: "take_over", action: "take_over", key: "k", alias: "take over chair jieguan jg", danger: true, fits: (at) => live(at) && !at.desk.isChair(), run: (at) => void at.desk.verbs.takeOver() },
  { id: "hand_back", words: "hand_back", action: "hand_back", key: "k", alias: "hand back chair jiaohuan jh", danger: true, fits: (at) => live(at) && at.desk.isChair() && at.meeting?.takenFrom !== "", run: (at) => void at.desk.verbs.handBack() },
  {
    id: "request_chair", words: "request_chair", action: "request_chair", key: "k", alias: "request chair shenqing zhuxi sqzx",
    on: (at) => at.meeting?.chairRequests.includes(at.desk.account.name) ?? false,
    fits: (at) => live(at) && !at.desk.isChair(),
    run: (at) => void at.desk.verbs.requestChair(at.meeting?.chairRequests.includes(at.desk.account.name) ?? false),
  },
  { id: "release_chair", words: "release_chair", action: "release_chair", alias: "release chair shifang zhuxi sfzx", danger: true, fits: (at) => live(at) && at.desk.isChair(), run: (at) => void at.desk.verbs.releaseChair() },
  { id: "lock", words: "lock", action: "lock", key: "l", alias: "lock unlock suoding jiesuo sd", on: (at) => at.meeting?.locked ?? false, fits: live, run: (at) => void at.desk.verbs.lock(!at.meeting?.locked) },
  { id: "extend", words: "extend", action: "extend", key: "e", alias: "extend yanchang yc", fits: (at) => live(at) && at.meeting?.endsMs !== 0n, run: (at) => void at.desk.verbs.extend(EXTEND_MINUTES) },
  { id: "end", words: "end", action: "end_meeting", alias: "end finish jieshu js", danger: true, fits: live, run: (at) => void at.desk.end() },
];

const WHOLE_MEETING: readonly Command[] = [
  { id: "call_unconnected", words: "call_unconnected", action: "call_unconnected", key: "c", alias: "call unconnected again page missing hujiao weijietong hj", fits: (at) => live(at) && notOnAir(at.meeting?.summonses ?? []).some(mayCallAgain), run: (at) => void at.desk.callAgain() },
  { id: "add_sites", words: "add_sites", action: "add_sites", key: "a", alias: "add sites tianjia zengjia", fits: (at) => live(at) && at.desk.chosenOutside().length > 0, run: (at) => void at.desk.addChosen() },
  { id: "mute_all", words: "mute_all", action: "mute", key: "shift+m", alias: "mute all unmute quanti jingyin qtjy", on: (at) => allMuted(at.meeting), danger: (at) => !allMuted(at.meeting), fits: live, run: (at) => void at.desk.mute([], !allMuted(at.meeting)) },
  { id: "roll_call", words: "roll_call", action: "roll_call", key: "r", alias: "roll call dianming dm", fits: (at) => live(at) && !rollCalls(at), run: (at) => at.open("roll_call") },
  { id: "roll_call_here", words: "roll_call_here", action: "roll_call", key: "enter", alias: "acknowledge here present dao", fits: (at) => rollCalls(at) && viewOf(at.meeting!.rollCall!).current !== undefined, run: (at) => acknowledge(at) },
  { id: "roll_call_next", words: "roll_call_next", action: "roll_call", key: "n", alias: "next roll call xiayige", fits: (at) => rollCalls(at) && viewOf(at.meeting!.rollCall!).next.length > 0, run: (at) => void at.desk.verbs.nextRollCall() },
  { id: "roll_call_end", words: "roll_call_end", action: "roll_call", alias: "end roll call jieshu dianming", danger: true, fits: rollCalls, run: (at) => void at.desk.verbs.endRollCall() },
  { id: "floor_next", words: "floor_next", action: "floor", key: "f", alias: "floor grant next fayan yunxu", fits: (at) => live(at) && floorOf(at.meeting).waiting.length > 0, run: (at) => void at.desk.verbs.grantFloor(floorOf(at.meeting).waiting[0]!.site) },
  { id: "floor_end", words: "floor_end", action: "floor", key: "shift+f", alias: "floor take shouhui fayan", fits: (at) => live(at) && floorOf(at.meeting).speaking.length > 0, run: (at) => void at.desk.verbs.takeFloor(floorOf(at.meeting).speaking[0]!.site) },
  { id: "polling", words: "polling", action: "set_stage", key: "p", alias: "polling lunxun lx", on: (at) => at.meeting?.stage?.polling !== undefined, fits: live, run: (at) => void at.desk.togglePolling() },
  { id: "polling_pause", words: "polling_pause", action: "set_stage", key: "shift+p", alias: "polling pause zanting lunxun", on: (at) => at.meeting?.stage?.polling?.paused ?? false, fits: (at) => live(at) && at.meeting?.stage?.polling !== undefined, run: (at) => at.desk.pausePolling() },
  { id: "voice", words: "voice", action: "set_stage", key: "v", alias: "voice switching shengkong qiehuan sk", on: (at) => at.meeting?.stage?.voiceSwitching ?? false, fits: live, run: (at) => void at.desk.verbs.voiceSwitching(!at.meeting?.stage?.voiceSwitching) },
  { id: "force_layout", words: "force_layout", action: "set_stage", alias: "layout force all walls buju tuisong", on: (at) => (at.meeting?.stage?.layout ?? 0) !== Layout.LAYOUT_UNSPECIFIED, fits: live, run: (at) => void at.desk.forceLayout((at.meeting?.stage?.layout ?? 0) === Layout.LAYOUT_UNSPECIFIED) },
  { id: "share", words: "share", action: "set_stage", key: "s", alias: "share screen content gongxiang pingmu", on: (at) => at.desk.shared.get() !== undefined, fits: (at) => live(at) && inside(at), run: (at) => void at.desk.share() },
  { id: "content_off", words: "content_off", action: "set_stage", alias: "content off take back neirong shouhui", fits: (at) => live(at) && Boolean(at.meeting?.stage?.contentSite) && at.meeting?.stage?.contentSite !== at.desk.self, run: (at) => void at.desk.verbs.content("") },
  { id: "meetings", words: "meetings", alias: "meetings all other back huiyi liebiao fanhui", fits: (at) => live(at) && at.desk.keeper.phase.get().kind === "out", run: (at) => at.desk.view("") },
  { id: "join", words: "join", action: "join_as_desk", key: "j", alias: "join go in jinru", fits: (at) => live(at) && at.desk.keeper.phase.get().kind === "out", run: (at) => void at.desk.goIn(at.meeting!.id) },
];

const ONE_SITE: readonly Command[] = [
  { id: "broadcast", words: "broadcast", action: "broadcast", site: true, key: "b", alias: "broadcast large guangbo gb", on: (at) => at.meeting?.stage?.broadcastSite === at.site, fits: inMeeting, run: (at) => void at.desk.broadcast(at.site!) },
  { id: "watch", words: "watch", action: "watch_site", site: true, key: "w", alias: "watch guankan gk", on: watched, fits: inMeeting, run: watch },
  { id: "mute", words: "mute", action: "mute", site: true, key: "m", alias: "mute unmute jingyin jy", on: muted, fits: inMeeting, run: (at) => void at.desk.toggleMute(at.site!) },
  {
    id: "floor", words: "floor", action: "floor", site: true, key: "g", alias: "floor give grant take fayan fy",
    on: (at) => floorStateOf(at) === FloorState.GRANTED,
    fits: inMeeting,
    run: (at) => void (floorStateOf(at) === FloorState.GRANTED ? at.desk.verbs.takeFloor(at.site!) : at.desk.verbs.grantFloor(at.site!)),
  },
  { id: "call", words: "call", action: "call_unconnected", site: true, alias: "call again hujiao zaici", fits: (at) => { const summons = called(at); return live(at) && summons !== undefined && mayCallAgain(summons); }, run: (at) => void at.desk.callAgain([at.site!]) },
  { id: "content", words: "content", action: "set_stage", site: true, alias: "content shows neirong", on: (at) => at.meeting?.stage?.contentSite === at.site, fits: inMeeting, run: (at) => void at.desk.verbs.content(at.meeting?.stage?.contentSite === at.site ? "" : at.site!) },
  { id: "roll_call_site", words: "roll_call_site", action: "roll_call", site: true, alias: "roll call this site dianming", fits: (at) => rollCalls(at) && inMeeting(at), run: (at) => void at.desk.verbs.nextRollCall(at.site) },
  { id: "hang_up", words: "hang_up", action: "hang_up", site: true, key: "h", alias: "hang up out guaduan gd", danger: true, fits: inMeeting, run: (at) => void at.desk.verbs.hangUp([at.site!]) },
  { id: "add", words: "add", action: "add_sites", site: true, alias: "add to the meeting jiaru tianjia", fits: (at) => live(at) && called(at) === undefined && at.site !== undefined, run: (at) => void at.desk.addSites([at.site!]) },
];

const LAYOUT: readonly Command[] = LAYOUTS.map(([, tiles], at) => ({
  id: `layout_${tiles}`, words: `layout.${tiles}`, key: String(at + 1), alias: `layout tiles buju ${tiles}`, fits: live, run: ({ desk }) => desk.chooseTiles(tiles),
}));

export const COMMANDS: readonly Command[] = [...ONE_SITE, ...WHOLE_MEETING, ...CHAIR, ...LAYOUT, ...BEFORE_MEETING];

function acknowledge({ desk, meeting }: Context): void {
  const current = meeting?.rollCall && viewOf(meeting.rollCall).current;
  if (current) void desk.verbs.acknowledge(current.site);
}

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
  return `cmd.${command.words}${command.on?.(at) ? ".off" : ""}`;
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

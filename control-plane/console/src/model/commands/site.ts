// What can be done with one site: its picture, its sound, its call, its link.

import { FloorState } from "../../gen/muster/command/v1/types_pb";
import { mayCallAgain } from "../meeting";
import { called, inMeeting, live, rollCalls, type Command, type Context } from "./shape";

const muted = (at: Context): boolean => at.meeting?.stage?.mutedSites.includes(at.site ?? "") ?? false;
const showsContent = (at: Context): boolean => at.meeting?.stage?.contentSite === at.site;
const hasFloor = (at: Context): boolean => at.meeting?.floor.find(({ site }) => site === at.site)?.state === FloorState.GRANTED;

/** The chair's large picture is a thing of the meeting; anybody else's is their own. */
function watched({ desk, meeting, site }: Context): boolean {
  return (desk.isChair() ? meeting?.stage?.watchedSite : desk.enlarged.get()) === site;
}
function watch(at: Context): void {
  const site = watched(at) ? "" : at.site!;
  if (at.desk.isChair()) void at.desk.verbs.watchSite(site);
  else at.desk.enlarged.set(site || undefined);
}
function mayBeCalled(at: Context): boolean {
  const summons = called(at);
  return live(at) && summons !== undefined && mayCallAgain(summons);
}
function giveOrTakeFloor(at: Context): void {
  void (hasFloor(at) ? at.desk.verbs.takeFloor(at.site!) : at.desk.verbs.grantFloor(at.site!));
}

export const SITE: readonly Command[] = [
  {
    id: "broadcast",
    on: (at) => at.meeting?.stage?.broadcastSite === at.site,
    action: "broadcast",
    site: true,
    key: "b",
    alias: "broadcast large guangbo gb",
    fits: inMeeting,
    run: (at) => void at.desk.broadcast(at.site!),
  },
  {
    id: "watch",
    on: watched,
    action: "watch_site",
    site: true,
    key: "w",
    alias: "watch guankan gk",
    fits: inMeeting,
    run: watch,
  },
  {
    id: "mute",
    on: muted,
    action: "mute",
    site: true,
    key: "m",
    alias: "mute unmute jingyin jy",
    fits: inMeeting,
    run: (at) => void at.desk.toggleMute(at.site!),
  },
  {
    id: "floor",
    on: hasFloor,
    action: "floor",
    site: true,
    key: "g",
    alias: "floor give grant take fayan fy",
    fits: inMeeting,
    run: giveOrTakeFloor,
  },
  {
    id: "call",
    action: "call_unconnected",
    site: true,
    alias: "call again hujiao zaici",
    fits: mayBeCalled,
    run: (at) => void at.desk.callAgain([at.site!]),
  },
  {
    id: "content",
    on: showsContent,
    action: "set_stage",
    site: true,
    alias: "content shows neirong",
    fits: inMeeting,
    run: (at) => void at.desk.verbs.content(showsContent(at) ? "" : at.site!),
  },
  {
    id: "roll_call_site",
    action: "roll_call",
    site: true,
    alias: "roll call this site dianming",
    fits: (at) => rollCalls(at) && inMeeting(at),
    run: (at) => void at.desk.verbs.nextRollCall(at.site),
  },
  {
    id: "hang_up",
    action: "hang_up",
    site: true,
    key: "h",
    alias: "hang up out guaduan gd",
    danger: true,
    fits: inMeeting,
    run: (at) => void at.desk.verbs.hangUp([at.site!]),
  },
  {
    id: "add",
    action: "add_sites",
    site: true,
    alias: "add to the meeting jiaru tianjia",
    fits: (at) => live(at) && called(at) === undefined && at.site !== undefined,
    run: (at) => void at.desk.addSites([at.site!]),
  },
  {
    id: "site_link",
    action: "create_site_link",
    site: true,
    anywhere: true,
    alias: "site link url copy lianjie huichang fuzhi",
    fits: (at) => at.site !== undefined,
    run: (at) => at.open("site_link", at.site),
  },
];

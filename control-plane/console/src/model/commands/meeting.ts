// What is done with a meeting as a whole: who is called, who is heard, who speaks, when it ends, and to which one to go.

import type { Meeting, Summons } from "../../gen/muster/command/v1/types_pb";
import { floorOf, mayCallAgain, notOnAir } from "../meeting";
import { EXTEND_MINUTES } from "../verbs";
import { live, outside, type Command, type Context } from "./shape";

const missing = ({ meeting }: Context): Summons[] => notOnAir(meeting?.summonses ?? []).filter(mayCallAgain);

export function allMuted(meeting: Meeting | undefined): boolean {
  const quiet = new Set(meeting?.stage?.mutedSites);
  return meeting !== undefined && meeting.summonses.length > 0 && meeting.summonses.every(({ site }) => quiet.has(site));
}

export const MEETING: readonly Command[] = [
  {
    id: "call_unconnected",
    action: "call_unconnected",
    key: "c",
    alias: "call unconnected again page missing hujiao weijietong hj",
    fits: (at) => live(at) && missing(at).length > 0,
    run: (at) => void at.desk.callAgain(),
  },
  {
    id: "add_sites",
    action: "add_sites",
    key: "a",
    alias: "add sites tianjia zengjia",
    fits: (at) => live(at) && at.desk.chosenOutside().length > 0,
    run: (at) => void at.desk.addChosen(),
  },
  {
    id: "mute_all",
    on: (at) => allMuted(at.meeting),
    action: "mute",
    key: "shift+m",
    alias: "mute all unmute quanti jingyin qtjy",
    danger: (at) => !allMuted(at.meeting),
    fits: live,
    run: (at) => void at.desk.mute([], !allMuted(at.meeting)),
  },
  {
    id: "floor_next",
    action: "floor",
    key: "f",
    alias: "floor grant next fayan yunxu",
    fits: (at) => live(at) && floorOf(at.meeting).waiting.length > 0,
    run: (at) => void at.desk.verbs.grantFloor(floorOf(at.meeting).waiting[0]!.site),
  },
  {
    id: "floor_end",
    action: "floor",
    key: "shift+f",
    alias: "floor take shouhui fayan",
    fits: (at) => live(at) && floorOf(at.meeting).speaking.length > 0,
    run: (at) => void at.desk.verbs.takeFloor(floorOf(at.meeting).speaking[0]!.site),
  },
  {
    id: "lock",
    on: (at) => at.meeting?.locked ?? false,
    action: "lock",
    key: "l",
    alias: "lock unlock suoding jiesuo sd",
    fits: live,
    run: (at) => void at.desk.verbs.lock(!at.meeting?.locked),
  },
  {
    id: "extend",
    action: "extend",
    key: "e",
    alias: "extend yanchang yc",
    fits: (at) => live(at) && at.meeting?.endsMs !== 0n,
    run: (at) => void at.desk.verbs.extend(EXTEND_MINUTES),
  },
  {
    id: "end",
    action: "end_meeting",
    alias: "end finish jieshu js",
    danger: true,
    fits: live,
    run: (at) => void at.desk.end(),
  },
  {
    id: "join",
    action: "join_as_desk",
    key: "j",
    alias: "join go in jinru",
    fits: (at) => live(at) && outside(at),
    run: (at) => void at.desk.goIn(at.meeting!.id),
  },
  {
    id: "meetings",
    alias: "meetings all other back huiyi liebiao fanhui",
    fits: (at) => live(at) && outside(at),
    run: (at) => at.desk.view(""),
  },
  {
    id: "next_meeting",
    key: "x",
    alias: "next meeting switch other qiehuan huiyi qh",
    fits: ({ desk }) => desk.nextMeeting() !== undefined,
    run: ({ desk }) => void desk.switchTo(desk.nextMeeting()!.id),
  },
];

// The roll call (点名), from its start to its end.

import { viewOf, type RollCallView } from "../rollcall";
import { live, rollCalls, type Command, type Context } from "./shape";

/** Of a roll call that goes on: `rollCalls` says whether one does. */
const rollCallOf = ({ meeting }: Context): RollCallView => viewOf(meeting!.rollCall!);

function acknowledge(at: Context): void {
  const { current } = rollCallOf(at);
  if (current) void at.desk.verbs.acknowledge(current.site);
}

export const ROLLCALL: readonly Command[] = [
  {
    id: "roll_call",
    action: "roll_call",
    key: "r",
    alias: "roll call dianming dm",
    fits: (at) => live(at) && !rollCalls(at),
    run: (at) => at.open("roll_call"),
  },
  {
    id: "roll_call_here",
    action: "roll_call",
    key: "enter",
    alias: "acknowledge here present dao",
    fits: (at) => rollCalls(at) && rollCallOf(at).current !== undefined,
    run: acknowledge,
  },
  {
    id: "roll_call_next",
    action: "roll_call",
    key: "n",
    alias: "next roll call xiayige",
    fits: (at) => rollCalls(at) && rollCallOf(at).next.length > 0,
    run: (at) => void at.desk.verbs.nextRollCall(),
  },
  {
    id: "roll_call_end",
    action: "roll_call",
    alias: "end roll call jieshu dianming",
    danger: true,
    fits: rollCalls,
    run: (at) => void at.desk.verbs.endRollCall(),
  },
];

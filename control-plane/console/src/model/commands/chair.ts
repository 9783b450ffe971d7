// Who has the chair: taken over and handed back, requested and released.

import { live, type Command, type Context } from "./shape";

const wantsChair = ({ meeting, desk }: Context): boolean => meeting?.chairRequests.includes(desk.account.name) ?? false;

export const CHAIR: readonly Command[] = [
  {
    id: "take_over",
    action: "take_over",
    key: "k",
    alias: "take over chair jieguan jg",
    danger: true,
    fits: (at) => live(at) && !at.desk.isChair(),
    run: (at) => void at.desk.verbs.takeOver(),
  },
  {
    id: "hand_back",
    action: "hand_back",
    key: "shift+k",
    alias: "hand back chair jiaohuan jh",
    danger: true,
    fits: (at) => live(at) && at.desk.isChair() && at.meeting?.takenFrom !== "",
    run: (at) => void at.desk.verbs.handBack(),
  },
  {
    id: "request_chair",
    on: wantsChair,
    action: "request_chair",
    key: "q",
    alias: "request chair shenqing zhuxi sqzx",
    fits: (at) => live(at) && !at.desk.isChair(),
    run: (at) => void at.desk.verbs.requestChair(wantsChair(at)),
  },
  {
    id: "release_chair",
    action: "release_chair",
    alias: "release chair shifang zhuxi sfzx",
    danger: true,
    fits: (at) => live(at) && at.desk.isChair(),
    run: (at) => void at.desk.verbs.releaseChair(),
  },
];

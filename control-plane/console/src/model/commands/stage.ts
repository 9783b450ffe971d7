// What everyone sees: polling, voice switching, layouts, content.

import { Layout } from "../../gen/muster/command/v1/types_pb";
import { LAYOUTS } from "../wall";
import { inside, live, type Command, type Context } from "./shape";

const isForced = ({ meeting }: Context): boolean => (meeting?.stage?.layout ?? Layout.LAYOUT_UNSPECIFIED) !== Layout.LAYOUT_UNSPECIFIED;

function shownByAnother({ meeting, desk }: Context): boolean {
  const site = meeting?.stage?.contentSite ?? "";
  return site !== "" && site !== desk.self;
}

export const STAGE: readonly Command[] = [
  {
    id: "polling",
    on: (at) => at.meeting?.stage?.polling !== undefined,
    action: "set_stage",
    key: "p",
    alias: "polling lunxun lx",
    fits: live,
    run: (at) => void at.desk.togglePolling(),
  },
  {
    id: "polling_pause",
    on: (at) => at.meeting?.stage?.polling?.paused ?? false,
    action: "set_stage",
    key: "shift+p",
    alias: "polling pause zanting lunxun",
    fits: (at) => live(at) && at.meeting?.stage?.polling !== undefined,
    run: (at) => at.desk.pausePolling(),
  },
  {
    id: "voice",
    on: (at) => at.meeting?.stage?.voiceSwitching ?? false,
    action: "set_stage",
    key: "v",
    alias: "voice switching shengkong qiehuan sk",
    fits: live,
    run: (at) => void at.desk.verbs.voiceSwitching(!at.meeting?.stage?.voiceSwitching),
  },
  {
    id: "force_layout",
    on: isForced,
    action: "set_stage",
    alias: "layout force all walls buju tuisong",
    fits: live,
    run: (at) => void at.desk.forceLayout(!isForced(at)),
  },
  {
    id: "share",
    on: (at) => at.desk.shared.get() !== undefined,
    action: "set_stage",
    key: "s",
    alias: "share screen content gongxiang pingmu",
    fits: (at) => live(at) && inside(at),
    run: (at) => void at.desk.share(),
  },
  {
    id: "content_off",
    action: "set_stage",
    alias: "content off take back neirong shouhui",
    fits: (at) => live(at) && shownByAnother(at),
    run: (at) => void at.desk.verbs.content(""),
  },
];

/** The layouts of the wall, by the keys of the digits. */
export const LAYOUT: readonly Command[] = LAYOUTS.map(([, tiles], at) => ({
  id: `layout_${tiles}`,
  words: `layout.${tiles}`,
  key: String(at + 1),
  alias: `layout tiles buju ${tiles}`,
  fits: live,
  run: ({ desk }) => desk.chooseTiles(tiles),
}));

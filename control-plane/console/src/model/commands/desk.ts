// What needs no meeting: convening, what is prepared, the records, the accounts, the keys.

import type { Command } from "./shape";

export const DESK: readonly Command[] = [
  {
    id: "convene",
    action: "convene",
    key: "z",
    alias: "convene call zhaoji zj",
    fits: ({ desk }) => desk.selection.count.get() > 0,
    run: (at) => at.open("convene"),
  },
  {
    id: "plans",
    key: "o",
    alias: "presets schedules drills plans yuan dingshi yanlian yushe ys",
    fits: () => true,
    run: (at) => at.open("plans"),
  },
  {
    id: "drill",
    action: "drill",
    alias: "drill silent check jingmo jiancha jc yanlian",
    fits: (at) => at.desk.selection.count.get() > 0,
    run: (at) => at.open("plans"),
  },
  {
    id: "reports",
    alias: "reports difficulties shangbao sb",
    fits: () => true,
    run: (at) => at.open("reports"),
  },
  {
    id: "records",
    key: "t",
    alias: "records log ended attendance roll call table csv export print verify replay kaoqin jilu rizhi lishi daochu dayin",
    fits: () => true,
    run: (at) => at.open("records"),
  },
  {
    id: "accounts",
    action: "manage_accounts",
    alias: "accounts roles delegate zhanghao quanxian shouquan",
    fits: () => true,
    run: (at) => at.open("accounts"),
  },
  {
    id: "keys",
    key: "?",
    alias: "keys help shortcuts bangzhu kuaijiejian",
    fits: () => true,
    run: (at) => at.open("keys"),
  },
];

import { create } from "@bufbuild/protobuf";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { PermissionsSchema, PresetSchema } from "../src/gen/muster/command/v1/command_pb";
import { ChairCause, FloorState, Layout, Priority, RollCallResult, SelectorSchema, SummonsReason, SummonsState } from "../src/gen/muster/command/v1/types_pb";
import { loadWords, translate, type Key } from "../src/i18n";
import { Accounts } from "../src/model/accounts";
import { createApi } from "../src/model/api";
import { ARMED_MS, Arming } from "../src/model/arming";
import { ACTIONS, Authority } from "../src/model/authority";
import { byId, COMMANDS, ofKey, perform, shown, wordsOf, type Command, type Context, type Panel } from "../src/model/commands";
import { Desk } from "../src/model/desk";
import { NO_CAPTURE } from "../src/model/media/devices";
import { find } from "../src/model/palette";
import { MockControlPlane } from "./mock/control-plane";
import { tree } from "./eastlake";
import { settle, TestWorld } from "./world";

await Promise.all([loadWords("en", true), loadWords("zh", true)]);

async function start(plane = new MockControlPlane({ ...tree, offline: ["WH-EL-S03"], delay: () => 0 })) {
  const world = new TestWorld();
  const account = plane.offices.accounts[0]!;
  const desk = new Desk(
    { world, api: createApi(plane.transport()), openLeg: async () => ({ kind: "unreachable" }), relay: () => plane.transport(), devices: async () => ({ ...NO_CAPTURE, camera: "missing", mic: "missing" }) },
    account,
  );
  desk.start();
  await world.pass(200);
  const opened: Panel[] = [];
  const at = (site?: string): Context => ({ desk, meeting: desk.meeting.get(), may: desk.authority.may.get(), site: site ?? desk.wall.focused(), open: (panel) => opened.push(panel) });
  return { world, plane, desk, at, opened };
}
async function inMeeting(units: string[] = ["WH-EL-01"]) {
  const all = await start();
  for (const unit of units) all.desk.selection.toggle(unit);
  await all.desk.convene({ selector: all.desk.selection.selector(), title: "night", key: "k" });
  all.desk.selection.clear();
  await later(all.world);
  return all;
}
async function later(world: TestWorld): Promise<void> {
  await new Promise((done) => setTimeout(done, 30));
  await settle();
  await world.pass(100);
}
const press = (key: string, at: Context, shift = false): boolean => {
  const command = ofKey(key, shift, at);
  return command !== undefined && perform(command, at);
};

describe("the commands", () => {
  it("name the actions as the domain does", () => {
    const source = readFileSync(new URL("../../domain/src/authority.rs", import.meta.url), "utf8");
    const words = [...source.matchAll(/^\s+[A-Z]\w+, "([a-z_]+)", "/gm)].map((match) => match[1]);
    expect(words.length).toBeGreaterThan(20);
    expect([...ACTIONS].sort()).toEqual([...new Set(words)].sort());
  });

  it("have one key each and one name each, and none of the keys that the page itself hears", () => {
    const keys = COMMANDS.flatMap(({ key }) => (key === undefined ? [] : [key]));
    const twice = (list: readonly string[]): string[] => list.filter((one, at) => list.indexOf(one) !== at);
    expect(keys.length).toBeGreaterThan(30);
    expect(twice(keys)).toEqual([]);
    expect(twice(COMMANDS.map(({ id }) => id))).toEqual([]);
    expect(keys.filter((key) => key !== key.toLowerCase() || ["/", ".", "escape", " ", "tab", "pageup", "pagedown"].includes(key))).toEqual([]);
  });

  it("convene another meeting from within one, and go to and fro between them", async () => {
    const { plane, desk, world, at } = await inMeeting();
    const first = desk.meeting.get()!;
    expect(shown(byId("next_meeting"), at())).toBe(false);
    desk.selection.toggle("WH-S01");
    expect(shown(byId("convene"), at())).toBe(true);
    // The mock keeps one meeting; the console all that it was told of.
    expect(await desk.convene({ selector: desk.selection.selector(), title: "fire", key: "k2", priority: Priority.EMERGENCY })).toBeUndefined();
    await later(world);
    const second = desk.meeting.get()!;
    expect([second.title, second.priority, desk.meetings.get().map(({ id }) => id)]).toEqual(["fire", Priority.EMERGENCY, [first.id, second.id]]);
    expect(press("x", at())).toBe(true);
    await later(world);
    expect(desk.meeting.get()!.id).toBe(first.id);
    expect(desk.keeper.phase.get().kind).not.toBe("out");
    const titled = desk.meetings.get().map((meeting) => ({ meeting, title: meeting.title }));
    const [found] = find({ query: "fire", at: at(), directory: desk.roster.directory.get(), presets: [], meetings: titled, say: () => "", verb: undefined });
    expect(found).toMatchObject({ kind: "meeting", meeting: { id: second.id } });
    await desk.switchTo(second.id);
    expect(desk.meeting.get()!.id).toBe(second.id);
    // Whoever is in none only looks at another.
    desk.goOut();
    await desk.switchTo(first.id);
    expect([desk.meeting.get()!.id, desk.keeper.phase.get().kind]).toEqual([first.id, "out"]);
    expect(plane.acted).toEqual([]);
    desk.stop(false);
  });

  it("make a link for a site without a meeting, for whoever may", async () => {
    const { plane, desk, world, at, opened } = await start();
    expect(shown(byId("site_link"), at())).toBe(false);
    perform(byId("site_link"), at("WH-S01"));
    expect(opened).toEqual(["site_link"]);
    const say = (command: Command): string => translate("en", wordsOf(command, at()) as Key);
    const input = { at: at(), directory: desk.roster.directory.get(), presets: [], say, verb: undefined };
    expect(find({ ...input, query: "link" })[0]).toMatchObject({ kind: "verb", command: { id: "site_link" } });
    expect(find({ ...input, query: "", verb: byId("site_link") }).length).toBeGreaterThan(5);
    plane.tell({ case: "permissions", value: create(PermissionsSchema, { meeting: "", actions: ["view", "convene"] }) });
    await later(world);
    expect(shown(byId("site_link"), at("WH-S01"))).toBe(false);
    desk.stop(false);
  });

  it("show only what the person may do", async () => {
    const { plane, desk, at } = await inMeeting();
    const site = desk.meeting.get()!.summonses[0]!.site;
    const ids = (): string[] => COMMANDS.filter((command) => shown(command, at(site))).map(({ id }) => id);
    expect(ids()).toEqual(expect.arrayContaining(["broadcast", "mute", "roll_call", "lock", "end", "hang_up"]));
    plane.tell({ case: "permissions", value: create(PermissionsSchema, { meeting: desk.meeting.get()!.id, actions: ["view", "request_chair", "join_as_desk"] }) });
    await settle();
    expect(ids()).not.toEqual(expect.arrayContaining(["broadcast"]));
    for (const gone of ["broadcast", "mute", "roll_call", "lock", "end", "hang_up", "polling"]) expect(ids()).not.toContain(gone);
    desk.stop(false);
  });

  it("are done by their keys, and those that cannot be taken back by a second press", async () => {
    const { plane, desk, world, at } = await inMeeting();
    const site = desk.meeting.get()!.summonses[0]!.site;
    press("b", at(site));
    press("w", at(site));
    press("v", at());
    press("l", at());
    await later(world);
    const meeting = desk.meeting.get()!;
    expect([meeting.stage?.broadcastSite, meeting.stage?.watchedSite, meeting.stage?.voiceSwitching, meeting.locked]).toEqual([site, site, true, true]);
    expect(press("h", at(site))).toBe(false);
    expect(plane.acted).not.toContain("hangUp");
    // Another site is another thing: it arms anew.
    expect(press("h", at(meeting.summonses[1]!.site))).toBe(false);
    expect(press("h", at(meeting.summonses[1]!.site))).toBe(true);
    await later(world);
    expect(desk.meeting.get()!.summonses.filter(({ state }) => state === SummonsState.LEFT).map(({ reason, site }) => [site, reason])).toEqual([[meeting.summonses[1]!.site, SummonsReason.HUNG_UP_BY_CHAIR]]);
    expect(press("M", at(), true)).toBe(false);
    expect(press("M", at(), true)).toBe(true);
    desk.stop(false);
  });

  it("say what they do next", async () => {
    const { desk, world, at } = await inMeeting();
    const site = desk.meeting.get()!.summonses[0]!.site;
    expect(wordsOf(byId("mute"), at(site))).toBe("cmd.mute");
    press("m", at(site));
    await later(world);
    expect(wordsOf(byId("mute"), at(site))).toBe("cmd.mute.off");
    desk.stop(false);
  });

  it("hold a roll call from its start to its end", async () => {
    const { desk, world, at, opened } = await inMeeting();
    press("r", at());
    expect(opened).toEqual(["roll_call"]);
    await desk.verbs.startRollCall(15);
    await later(world);
    const first = desk.meeting.get()!.rollCall!.entries.find(({ result }) => result === RollCallResult.CALLED)!.site;
    press("Enter", at());
    await later(world);
    press("n", at());
    await later(world);
    const call = desk.meeting.get()!.rollCall!;
    expect(call.entries.find(({ site }) => site === first)).toMatchObject({ result: RollCallResult.PRESENT, acknowledgedBy: "duty" });
    expect(call.entries.filter(({ result }) => result === RollCallResult.ABSENT)).toHaveLength(1);
    perform(byId("roll_call_end"), at());
    perform(byId("roll_call_end"), at());
    await later(world);
    expect(desk.meeting.get()!.rollCall!.endedMs).not.toBe(0n);
    expect(ofKey("Enter", false, at())).toBeUndefined();
    desk.stop(false);
  });

  it("give the floor in order, and take it", async () => {
    const { plane, desk, world, at } = await inMeeting();
    const [first, second] = desk.meeting.get()!.summonses.map(({ site }) => site);
    const { floor } = await import("./mock/acts");
    floor(plane, `site:${first}`, first!, FloorState.WAITING, 0);
    floor(plane, `site:${second}`, second!, FloorState.WAITING, 0);
    await later(world);
    press("f", at());
    await later(world);
    expect(desk.meeting.get()!.floor.map(({ site, state }) => [site, state])).toEqual([[first, FloorState.GRANTED], [second, FloorState.WAITING]]);
    press("F", at(), true);
    await later(world);
    expect(desk.meeting.get()!.floor.map(({ site }) => site)).toEqual([second]);
    desk.stop(false);
  });

  it("poll the wall: its page is the meeting's, and the keyboard does not slide to another site", async () => {
    const { desk, world, at } = await inMeeting(["WH"]);
    press("p", at());
    await later(world);
    const polling = desk.meeting.get()!.stage!.polling!;
    expect(desk.wall.view.get()).toMatchObject({ tiles: 16, page: 0, pages: 9, visible: polling.sites });
    expect(desk.wall.slots.get().ahead.map(({ site }) => site)).toEqual(polling.next);
    desk.wall.focus.set(3);
    const held = new Map(desk.wall.slots.get().ahead.map(({ slot, site }) => [site, slot]));
    desk.turn(1);
    await later(world);
    expect(desk.wall.view.get().visible).toEqual(polling.next);
    // What was loaded ahead is shown where it is.
    expect(desk.wall.slots.get().tiles).toEqual(polling.next.map((site) => held.get(site)));
    expect(desk.wall.focus.get()).toBe(-1);
    press("P", at(), true);
    await later(world);
    expect(desk.meeting.get()!.stage!.polling!.paused).toBe(true);
    press("p", at());
    await later(world);
    expect(desk.wall.polling.get()).toBeUndefined();
    desk.stop(false);
  });

  it("force a layout on all walls, and give each its own back", async () => {
    const { desk, world, at } = await inMeeting(["WH"]);
    press("4", at());
    expect(desk.wall.view.get().tiles).toBe(9);
    perform(byId("force_layout"), at());
    await later(world);
    expect(desk.meeting.get()!.stage!.layout).toBe(Layout.LAYOUT_9);
    press("6", at());
    await later(world);
    expect([desk.meeting.get()!.stage!.layout, desk.wall.view.get().tiles]).toEqual([Layout.LAYOUT_25, 25]);
    perform(byId("force_layout"), at());
    await later(world);
    expect([desk.meeting.get()!.stage!.layout, desk.wall.view.get().tiles]).toEqual([Layout.LAYOUT_UNSPECIFIED, 9]);
    desk.stop(false);
  });

  it("read from whom the chair was taken, where the snapshot named only the last", async () => {
    const plane = new MockControlPlane({ ...tree, delay: () => 0 });
    plane.convene(["WH-S01"], "of another");
    const chair = (to: string, before: string, cause: ChairCause): void => plane.emit(to, { case: "chair", value: { $typeName: "muster.command.v1.ChairChanged", chair: to, before, cause } });
    plane.emit("other", { case: "chair", value: { $typeName: "muster.command.v1.ChairChanged", chair: "low", before: "duty", cause: ChairCause.GRANTED } });
    chair("high", "low", ChairCause.TAKEN_OVER);
    chair("duty", "high", ChairCause.TAKEN_OVER);
    const { desk, world, at } = await start(plane);
    await later(world);
    desk.view(plane.meeting!.id);
    expect(desk.meeting.get()!.takenFrom).toBe("high");
    chair("high", "duty", ChairCause.HANDED_BACK);
    await later(world);
    await later(world);
    expect(desk.meeting.get()).toMatchObject({ chair: "high", takenFrom: "low" });
    expect(shown(byId("hand_back"), at())).toBe(false);
    desk.stop(false);
  });

  it("take a meeting over and hand it back", async () => {
    const { plane, desk, world, at } = await start();
    plane.convene(["WH-S01"], "of another");
    plane.emit("other", { case: "chair", value: { $typeName: "muster.command.v1.ChairChanged", chair: "other", before: "duty", cause: 1 } });
    await later(world);
    desk.view(plane.meeting!.id);
    perform(byId("take_over"), at());
    perform(byId("take_over"), at());
    await later(world);
    expect(desk.meeting.get()).toMatchObject({ chair: "duty", takenFrom: "other" });
    perform(byId("hand_back"), at());
    perform(byId("hand_back"), at());
    await later(world);
    expect(desk.meeting.get()).toMatchObject({ chair: "other", takenFrom: "" });
    desk.stop(false);
  });

  it("convene what is saved with one action, and add to it", async () => {
    const { desk, world, plane, at } = await start();
    await desk.plans.savePreset(create(PresetSchema, { name: "night", unit: "WH-EL", title: "夜间", selector: create(SelectorSchema, { subtrees: ["WH-EL-01"] }), priority: Priority.URGENT, minutes: 30 }));
    const [preset] = desk.plans.presets.get();
    await desk.convenePreset(preset!);
    await later(world);
    expect(desk.meeting.get()).toMatchObject({ title: "夜间", priority: Priority.URGENT, preset: preset!.id });
    const before = desk.meeting.get()!.summonses.length;
    desk.selection.toggle("WH-S01");
    expect(press("a", at())).toBe(true);
    await later(world);
    expect(desk.meeting.get()!.summonses).toHaveLength(before + 1);
    const ends = desk.meeting.get()!.endsMs;
    press("e", at());
    await later(world);
    expect(desk.meeting.get()!.endsMs - ends).toBe(15n * 60_000n);
    expect(plane.acted).toEqual(["addSites", "extend"]);
    desk.stop(false);
  });
});

describe("the palette", () => {
  const say = (at: Context, lang: "en" | "zh" = "en") => (command: Command): string => translate(lang, wordsOf(command, at) as Key);

  it("finds verbs and sites in one box, and both together", async () => {
    const { desk, at } = await inMeeting(["WH"]);
    const directory = desk.roster.directory.get();
    const search = (query: string, lang: "en" | "zh" = "en") => find({ query, at: at(), directory, presets: [], say: say(at(), lang), verb: undefined });
    expect(search("roll")[0]).toMatchObject({ kind: "command", command: { id: "roll_call" } });
    expect(search("点名", "zh")[0]).toMatchObject({ kind: "command", command: { id: "roll_call" } });
    expect(search("dm", "zh")[0]).toMatchObject({ kind: "command", command: { id: "roll_call" } });
    expect(search("花山村11", "zh")[0]).toMatchObject({ kind: "site" });
    const both = search("广播 花山村11", "zh")[0];
    expect(both).toMatchObject({ kind: "command", command: { id: "broadcast" } });
    expect(both?.kind === "command" && directory.sites.get(both.site!)?.nameZh).toContain("花山村11");
    desk.stop(false);
  });

  it("asks for the site of a verb that has none", async () => {
    const { desk, at } = await inMeeting();
    const input = { at: at(), directory: desk.roster.directory.get(), presets: [], say: say(at()) };
    expect(find({ ...input, query: "broadcast", verb: undefined })[0]).toMatchObject({ kind: "verb", command: { id: "broadcast" } });
    const sites = find({ ...input, query: "", verb: byId("broadcast") });
    expect(sites).toHaveLength(desk.meeting.get()!.summonses.length);
    desk.stop(false);
  });
});

describe("authority", () => {
  const permissions = (meeting: string, ...actions: string[]) => create(PermissionsSchema, { meeting, actions });

  it("hides nothing until the control plane has said something", () => {
    const authority = new Authority();
    expect(authority.may.get()("end_meeting")).toBe(true);
    authority.take(permissions("", "view"));
    expect([authority.may.get()("view"), authority.may.get()("end_meeting")]).toEqual([true, false]);
  });

  it("goes by what is said of the meeting in view", () => {
    const authority = new Authority();
    authority.take(permissions("", "view", "convene", "mute"));
    authority.take(permissions("m", "mute", "end_meeting"));
    authority.take(permissions("n", "view"));
    authority.view("m");
    expect((["convene", "mute", "end_meeting"] as const).map((action) => authority.may.get()(action))).toEqual([true, true, true]);
    authority.view("n");
    expect((["convene", "mute", "end_meeting"] as const).map((action) => authority.may.get()(action))).toEqual([true, false, false]);
  });
});

describe("arming", () => {
  it("forgets after a while, and when something else is pressed", async () => {
    const world = new TestWorld();
    const arming = new Arming(world);
    expect([arming.press("end"), arming.press("mute"), arming.press("end"), arming.press("end")]).toEqual([false, false, false, true]);
    arming.press("end");
    await world.pass(ARMED_MS + 1);
    expect(arming.press("end")).toBe(false);
  });
});

describe("accounts", () => {
  it("delegates for four hours, no longer than the own role lasts, and says a refusal", async () => {
    const plane = new MockControlPlane({ ...tree });
    const accounts = new Accounts(createApi(plane.transport()));
    await accounts.read();
    await accounts.delegate("audit", "WH-EL", 1_000_000, 0);
    const grants = () => accounts.list.get()!.find(({ name }) => name === "audit")!.grants;
    expect(grants().map(({ role, expiresMs }) => [role, expiresMs])).toEqual([[2, 15_400_000n]]);
    await accounts.delegate("audit", "WH-EL", 1_000_000, 2_000_000);
    expect(grants().map(({ expiresMs }) => expiresMs)).toEqual([2_000_000n]);
    await accounts.revoke("audit", grants()[0]!);
    expect(grants()).toEqual([]);
    expect(await accounts.put("new", "", "")).toBe(false);
    expect(accounts.failure.get()).toMatchObject({ kind: "invalid", code: "bad_text" });
    expect(await accounts.put("new", "新", "long enough")).toBe(true);
    expect(accounts.failure.get()).toBeUndefined();
  });
});

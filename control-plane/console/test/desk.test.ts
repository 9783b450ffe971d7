import { describe, expect, it } from "vitest";
import { SummonsReason, SummonsState } from "../src/gen/muster/command/v1/types_pb";
import { QualityMark, QualityReason } from "../src/gen/muster/media/v1/media_pb";
import { createApi } from "../src/model/api";
import { Desk } from "../src/model/desk";
import { NO_CAPTURE } from "../src/model/media/devices";
import { notOnAir } from "../src/model/meeting";
import { Session } from "../src/model/session";
import { MockControlPlane } from "./mock/control-plane";
import { tree } from "./eastlake";
import { settle, TestWorld } from "./world";

async function start(kept: Record<string, string> = {}, plane = new MockControlPlane({ ...tree, offline: ["WH-EL-S03"], delay: () => 0 })) {
  const world = new TestWorld();
  for (const [key, value] of Object.entries(kept)) world.keep(key, value);
  const legs: string[] = [];
  const api = createApi(plane.transport());
  const session = new Session(world, () => api);
  await session.signIn("duty", "night-shift");
  const state = session.state.get();
  if (state.kind !== "signed_in") throw new Error("not signed in");
  const desk = new Desk(
    {
      world,
      api,
      openLeg: async (ticket) => (legs.push(ticket.meeting), { kind: "unreachable" }),
      relay: () => plane.transport(),
      devices: async () => ({ ...NO_CAPTURE, camera: "missing", mic: "missing" }),
    },
    state.account,
  );
  desk.start();
  plane.beat((ms, run) => world.after(ms, run));
  await world.pass(200);
  return { world, plane, desk, legs, session };
}

/** The mock's own steps take real milliseconds. */
async function later(world: TestWorld): Promise<void> {
  await new Promise((done) => setTimeout(done, 30));
  await settle();
  await world.pass(100);
}

describe("the desk", () => {
  it("tells a wrong password from an unreachable control plane", async () => {
    const plane = new MockControlPlane({ ...tree });
    const api = createApi(plane.transport());
    const session = new Session(new TestWorld(), () => api);
    expect(await session.signIn("duty", "guess")).toEqual({ kind: "signed_out" });
    plane.cut();
    expect((await session.signIn("duty", "night-shift"))?.kind).toBe("unreachable");
  });

  it("convenes what is chosen and sees it on air", async () => {
    const { desk, world } = await start();
    desk.selection.toggle("WH");
    const preview = await desk.preview(desk.selection.selector());
    expect(preview.kind === "ok" && [preview.value.sites.length, preview.value.doubtful.length]).toEqual([140, 1]);
    expect(await desk.convene({ selector: desk.selection.selector(), title: "night", key: "k" })).toBeUndefined();
    await later(world);
    const missing = notOnAir(desk.meeting.get()!.summonses);
    expect(missing.map(({ site, state, reason }) => [site, state, reason])).toEqual([["WH-EL-S03", SummonsState.UNREACHABLE, SummonsReason.OFFLINE]]);
    expect(desk.roster.total.get()).toEqual({ total: 140, online: 139, called: 140, onAir: 139 });
    expect(desk.wall.view.get()).toMatchObject({ pages: 9, total: 140 });
    desk.stop(false);
  });

  it("holds a command back while the control plane is away, and sends it after", async () => {
    const { desk, world, plane } = await start();
    desk.selection.toggle("WH-EL-01");
    await desk.convene({ selector: desk.selection.selector(), title: "night", key: "k" });
    await later(world);
    plane.cut();
    await settle();
    const site = desk.meeting.get()!.summonses[0]!.site;
    void desk.broadcast(site);
    await world.pass(3_000);
    expect([desk.watch.connection.get().kind, desk.waiting.get()]).toEqual(["lost", 1]);
    plane.up();
    await world.pass(12_000);
    await world.pass(2_000);
    expect([desk.watch.connection.get().kind, desk.waiting.get()]).toEqual(["live", 0]);
    expect(desk.meeting.get()?.stage?.broadcastSite).toBe(site);
    desk.stop(false);
  });

  it("misses nothing that happened while it was away", async () => {
    const { desk, world, plane } = await start();
    desk.selection.toggle("WH-EL-01");
    await desk.convene({ selector: desk.selection.selector(), title: "night", key: "k" });
    await later(world);
    plane.cut();
    const site = desk.meeting.get()!.summonses[0]!.site;
    plane.summons(site, SummonsState.UNREACHABLE, SummonsReason.LINK_LOST);
    plane.summons(site, SummonsState.ON_AIR);
    plane.summons(site, SummonsState.LEFT);
    plane.up();
    await world.pass(15_000);
    expect(desk.meeting.get()?.summonses[0]?.state).toBe(SummonsState.LEFT);
    expect(desk.meeting.get()?.seq).toBe(plane.meeting?.seq);
    expect(desk.log.get().slice(-3).map(({ kind }) => kind)).toEqual(["trouble", "on_air", "left"]);
    desk.stop(false);
  });

  it("knows how each site fares, also what changed while it was away", async () => {
    const { desk, world, plane } = await start();
    desk.selection.toggle("WH-EL-01");
    await desk.convene({ selector: desk.selection.selector(), title: "night", key: "k" });
    await later(world);
    const site = desk.meeting.get()!.summonses[0]!.site;
    const fares = desk.qualities.of(site);
    expect(fares.get()).toBeUndefined();
    plane.fares(site, { mark: QualityMark.GOOD, upBps: 900_000 });
    await settle();
    expect([fares.get()?.mark, fares.get()?.upBps]).toEqual([QualityMark.GOOD, 900_000]);
    plane.cut();
    plane.fares(site, { mark: QualityMark.POOR, reason: QualityReason.LOSS_UP });
    plane.up();
    await world.pass(15_000);
    expect([fares.get()?.mark, desk.qualities.poor.get()]).toEqual([QualityMark.POOR, [site]]);
    await desk.end();
    await later(world);
    expect(fares.get()).toBeUndefined();
    desk.stop(false);
  });

  it("after a reload goes back into the meeting it was in", async () => {
    const first = await start();
    first.desk.selection.toggle("WH-EL-01");
    await first.desk.convene({ selector: first.desk.selection.selector(), title: "night", key: "k" });
    await later(first.world);
    const { id } = first.desk.meeting.get()!;
    const kept = Object.fromEntries(first.world.store);
    first.desk.stop(false);
    const second = await start(kept, first.plane);
    await second.world.pass(2_000);
    expect(second.desk.meeting.get()?.id).toBe(id);
    expect(second.legs).toContain(id);
    second.desk.stop(false);
  });

  it("a second desk sees the meeting, and is not put into it", async () => {
    const { desk, world, plane } = await start();
    plane.convene(["WH-S01"], "of another");
    await later(world);
    expect(desk.meetings.get().map(({ title }) => title)).toEqual(["of another"]);
    expect(desk.meeting.get()).toBeUndefined();
    desk.stop(false);
  });

  it("shows the end, and frees the tree for the next", async () => {
    const { desk, world } = await start();
    desk.selection.toggle("WH-EL-01");
    await desk.convene({ selector: desk.selection.selector(), title: "night", key: "k" });
    await later(world);
    await desk.end();
    await later(world);
    expect(desk.meeting.get()?.endedMs).not.toBe(0n);
    expect(desk.meetings.get()).toEqual([]);
    expect(desk.roster.total.get().called).toBe(0);
    expect(desk.keeper.phase.get().kind).toBe("out");
    desk.close();
    expect(desk.meeting.get()).toBeUndefined();
    desk.stop(false);
  });
});

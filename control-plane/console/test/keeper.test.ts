import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { JoinTicketSchema, type JoinTicket } from "../src/gen/muster/command/v1/command_pb";
import { MediaService, QualityMark, SlotStatus, SourceKind, WatchLegResponseSchema, type WatchLegResponse } from "../src/gen/muster/media/v1/media_pb";
import type { Outcome } from "../src/model/api";
import { Keeper } from "../src/model/media/keeper";
import type { LegConnection, OpenLeg } from "../src/model/media/rtc";
import { sleep } from "../src/model/ports";
import { Queue } from "./mock/queue";
import { settle, TestWorld } from "./world";

interface FakeLeg {
  token: string;
  packets: number;
  closed: boolean;
  /** A goodbye was said to the relay. */
  goodbye: boolean;
  down: () => void;
  queue: Queue<WatchLegResponse>;
}

function start() {
  const world = new TestWorld();
  const legs: FakeLeg[] = [];
  const views: { leg: number; wishes: [string, string | undefined, number][] }[] = [];
  const relay = { reachable: true, knowsSecret: true, tickets: 0, place: { relay: "", epoch: 0n }, lost: [] as string[] };
  let answer: Outcome<JoinTicket> | undefined;
  const openLeg: OpenLeg = async (ticket, _own, wallSlots) => {
    if (!relay.reachable) return { kind: "unreachable" };
    const leg: FakeLeg = { token: ticket.token, packets: 0, closed: false, goodbye: false, down: () => undefined, queue: new Queue() };
    const at = legs.push(leg) - 1;
    // Mids differ from leg to leg, names do not.
    const slots = ["stage", ...Array.from({ length: wallSlots }, (_, index) => `wall${index}`)].map((name, index) => ({ name, mid: `${at}-${index}`, stream: {} as MediaStream }));
    const connection: LegConnection = {
      secret: String(at),
      relayUrl: "http://relay",
      slots,
      onDown: (run) => void (leg.down = run),
      received: async () => slots.map(({ mid }) => ({ mid, frames: 0, packets: leg.packets, lost: 0, bytes: 0, freezes: 0 })),
      close: (gone = false) => {
        leg.closed = true;
        leg.goodbye ||= !gone;
      },
    };
    return { kind: "open", leg: connection };
  };
  const keeper = new Keeper({
    world,
    openLeg,
    relay: (_base, secret) =>
      createRouterTransport(({ service }) => {
        service(MediaService, {
          setView: ({ wishes }) => {
            views.push({ leg: Number(secret), wishes: wishes.map(({ slot, what, maxWidth }) => [slot, what.case === "source" ? what.value.site : undefined, maxWidth]) });
            return {};
          },
          async *watchLeg(_request, { signal }) {
            if (!relay.reachable) throw new ConnectError("connection refused", Code.Unavailable);
            if (!relay.knowsSecret) throw new ConnectError("unknown leg", Code.Unauthenticated);
            const leg = legs[Number(secret)]!;
            leg.queue = new Queue();
            yield* leg.queue.read(signal);
          },
        });
      }),
    yields: true,
    ticket: async (_meeting, lost) => {
      relay.tickets += 1;
      if (lost) relay.lost.push(`${lost.relay}/${lost.epoch}`);
      return answer ?? { kind: "ok", value: create(JoinTicketSchema, { token: `t${relay.tickets}`, relayUrl: "http://relay", ...relay.place }) };
    },
  });
  const say = (leg: number, event: WatchLegResponse["event"]): void => legs[leg]!.queue.push(create(WatchLegResponseSchema, { event }));
  const live = (leg: number, mid: string, site: string): void => say(leg, { case: "slot", value: { slot: mid, status: SlotStatus.LIVE, source: { site, kind: SourceKind.CAMERA } } as never });
  return { world, keeper, legs, views, relay, say, live, refuse: (with_: Outcome<JoinTicket> | undefined) => (answer = with_) };
}

describe("the keeper", () => {
  it("sends wishes by the mids of the leg, once it is open", async () => {
    const { keeper, views } = start();
    keeper.setWishes([{ slot: "stage", width: 640, height: 360 }, { slot: "wall1", site: "a", width: 160, height: 90 }]);
    keeper.join("m", {}, 2);
    await settle();
    expect(keeper.phase.get().kind).toBe("in");
    expect(views).toEqual([{ leg: 0, wishes: [["0-0", undefined, 640], ["0-2", "a", 160]] }]);
  });

  it("sends what changed while a request was under way, and only the newest", async () => {
    const { keeper, views } = start();
    keeper.join("m", {}, 1);
    await settle();
    views.length = 0;
    for (const site of ["a", "b", "c"]) keeper.setWishes([{ slot: "wall0", site, width: 1, height: 1 }]);
    await settle();
    expect(views.map(({ wishes }) => wishes[0]?.[1])).toEqual(["a", "c"]);
  });

  it("comes back into the same slots with a new ticket when the connection is lost", async () => {
    const { keeper, world, legs, views, live } = start();
    keeper.setWishes([{ slot: "wall0", site: "a", width: 1, height: 1 }]);
    keeper.join("m", {}, 1);
    await settle();
    live(0, "0-1", "a");
    await settle();
    const slot = keeper.slot("wall0");
    expect(slot.state.get()?.source?.site).toBe("a");
    legs[0]!.down();
    await settle();
    expect(keeper.phase.get().kind).toBe("lost");
    await world.pass(1_000);
    expect(keeper.phase.get().kind).toBe("in");
    expect(legs.map(({ token }) => token)).toEqual(["t1", "t2"]);
    expect(legs[0]?.closed).toBe(true);
    expect(views[views.length - 1]).toEqual({ leg: 1, wishes: [["1-1", "a", 1]] });
    // What the old leg said of the slot is forgotten; what the new one says arrives in the same slot.
    expect(slot.state.get()).toBeUndefined();
    live(1, "1-1", "a");
    await settle();
    expect(slot.state.get()?.source?.site).toBe("a");
  });

  it("keeps the old connection while no new one can be had", async () => {
    const { keeper, world, legs, relay, refuse } = start();
    keeper.join("m", {}, 1);
    await settle();
    relay.reachable = false;
    refuse({ kind: "unreachable", code: "", message: "" });
    legs[0]!.queue.close();
    await world.pass(4_000);
    relay.knowsSecret = false;
    await world.pass(6_000);
    expect(keeper.phase.get().kind).toBe("lost");
    expect(legs[0]?.closed).toBe(false);
    relay.reachable = relay.knowsSecret = true;
    refuse(undefined);
    await world.pass(6_000);
    expect(keeper.phase.get().kind).toBe("in");
    expect(legs[0]?.closed).toBe(true);
  });

  it("gives way to another window that joins under the same name", async () => {
    const { keeper, world, legs, relay } = start();
    keeper.join("m", {}, 1);
    await settle();
    relay.knowsSecret = false;
    legs[0]!.queue.close();
    await world.pass(30_000);
    expect(keeper.phase.get().kind).toBe("elsewhere");
    // The window that joined last has the place: this one does not throw it out even once.
    expect(legs).toHaveLength(1);
    expect(legs[0]).toMatchObject({ closed: true, goodbye: false });
  });

  it("comes back by itself when the machine has slept", async () => {
    const { keeper, world, legs, relay, say } = start();
    keeper.join("m", {}, 1);
    await settle();
    say(0, { case: "heartbeat", value: { atMs: 0n } as never });
    await settle();
    world.sleep(60_000);
    relay.knowsSecret = false;
    legs[0]!.queue.close();
    await world.pass(260);
    relay.knowsSecret = true;
    await world.pass(10_000);
    expect(keeper.phase.get().kind).toBe("in");
    expect(legs).toHaveLength(2);
  });

  it("notices by itself that nothing comes any more from what the relay called live", async () => {
    const { keeper, world, legs, live } = start();
    keeper.join("m", {}, 1);
    await settle();
    await world.pass(6_000);
    // Nothing is live, so nothing is missing.
    expect(keeper.silentSince.get()).toBe(0);
    live(0, "0-1", "a");
    for (let turn = 0; turn < 3; turn += 1) {
      legs[0]!.packets += 10;
      await world.pass(2_000);
    }
    expect(keeper.silentSince.get()).toBe(0);
    const from = world.now();
    await world.pass(4_000);
    expect(keeper.silentSince.get()).toBeGreaterThan(from - 2_001);
    legs[0]!.packets += 1;
    await world.pass(2_000);
    expect(keeper.silentSince.get()).toBe(0);
  });

  it("asks for another place when nothing has come for a second, and goes there at once", async () => {
    const { keeper, world, legs, relay, live } = start();
    relay.place = { relay: "r1", epoch: 1n };
    keeper.join("m", {}, 1);
    await settle();
    live(0, "0-1", "a");
    for (let turn = 0; turn < 4; turn += 1) {
      legs[0]!.packets += 10;
      await world.pass(400);
    }
    expect(relay.lost).toEqual([]);
    // The relay is not suspected: the ticket is for the same place, and the leg stays as it is.
    await world.pass(1_700);
    expect(relay.lost).toEqual(["r1/1"]);
    expect([keeper.phase.get().kind, legs.length]).toEqual(["in", 1]);
    relay.place = { relay: "r2", epoch: 2n };
    await world.pass(1_000);
    expect(relay.lost).toEqual(["r1/1", "r1/1"]);
    expect([keeper.phase.get().kind, keeper.moving.get(), legs.length, legs[0]?.closed]).toEqual(["in", false, 2, true]);
  });

  it("asks as soon as the relay does not answer any more", async () => {
    const { keeper, world, legs, relay } = start();
    relay.place = { relay: "r1", epoch: 1n };
    keeper.join("m", {}, 1);
    await world.pass(10_000);
    relay.reachable = false;
    legs[0]!.queue.close();
    relay.place = { relay: "r2", epoch: 2n };
    await world.pass(400);
    expect(relay.lost).toEqual(["r1/1"]);
    relay.reachable = true;
    await world.pass(1_000);
    expect([keeper.phase.get().kind, legs.length]).toEqual(["in", 2]);
    // The next loss names the new place.
    legs[1]!.down();
    await world.pass(1_000);
    expect(relay.lost.slice(-1)).toEqual(["r2/2"]);
  });

  it("leaves nothing behind on a signal that outlives its sleeps", async () => {
    const world = new TestWorld();
    const stop = new AbortController();
    let listening = 0;
    const { addEventListener: add, removeEventListener: remove } = AbortSignal.prototype;
    stop.signal.addEventListener = function (this: AbortSignal, ...args: Parameters<typeof add>) { listening += 1; add.apply(this, args); };
    stop.signal.removeEventListener = function (this: AbortSignal, ...args: Parameters<typeof remove>) { listening -= 1; remove.apply(this, args); };
    for (let turn = 0; turn < 100; turn += 1) {
      const slept = sleep(world, 10, stop.signal);
      await world.pass(10);
      await slept;
    }
    expect(listening).toBe(0);
  });

  it("does not give way because the network comes and goes", async () => {
    const { keeper, world, legs } = start();
    keeper.join("m", {}, 1);
    await settle();
    for (let loss = 0; loss < 4; loss += 1) {
      legs[legs.length - 1]!.down();
      await world.pass(6_000);
    }
    expect(keeper.phase.get().kind).toBe("in");
    expect(legs).toHaveLength(5);
  });

  it("tells how the own leg fares, until it is out", async () => {
    const { keeper, say } = start();
    keeper.join("m", {}, 1);
    await settle();
    say(0, { case: "quality", value: { mark: QualityMark.FAIR } as never });
    await settle();
    expect(keeper.quality.get()?.mark).toBe(QualityMark.FAIR);
    keeper.leave();
    expect(keeper.quality.get()).toBeUndefined();
  });

  it("ends when the relay says that the meeting has ended", async () => {
    const { keeper, legs, say } = start();
    keeper.join("m", {}, 1);
    await settle();
    say(0, { case: "notice", value: { ended: true, muted: false, broadcastSite: "" } as never });
    await settle();
    expect(keeper.phase.get().kind).toBe("ended");
    expect(legs[0]?.closed).toBe(true);
  });

  it("stops trying when the ticket is refused for good", async () => {
    const { keeper, world, relay, refuse } = start();
    refuse({ kind: "not_found", code: "unknown_meeting", message: "no such meeting" });
    keeper.join("m", {}, 1);
    await world.pass(30_000);
    expect(keeper.phase.get()).toEqual({ kind: "refused", code: "unknown_meeting", message: "no such meeting" });
    expect(relay.tickets).toBe(1);
  });

  it("leaves for good", async () => {
    const { keeper, world, legs } = start();
    keeper.join("m", {}, 1);
    await settle();
    keeper.leave();
    legs[0]!.down();
    await world.pass(30_000);
    expect(legs).toHaveLength(1);
    expect(keeper.phase.get().kind).toBe("out");
  });
});

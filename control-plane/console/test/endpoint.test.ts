import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { Check, type DrillResult } from "../src/gen/muster/command/v1/command_pb";
import { AttachResponseSchema, EndpointService, type AttachResponse, type SummonsCall } from "../src/gen/muster/command/v1/endpoint_pb";
import { AnswerPolicy, FloorState, Priority, SummonsReason, SummonsState } from "../src/gen/muster/command/v1/types_pb";
import { MediaService } from "../src/gen/muster/media/v1/media_pb";
import { Endpoint } from "../src/model/endpoint";
import type { DeviceState } from "../src/model/media/devices";
import { createEndpointApi } from "../src/model/endpoint-api";
import { Queue } from "./mock/queue";
import { settle, TestWorld } from "./world";

function start(policy = AnswerPolicy.UNSPECIFIED, camera: DeviceState = "on") {
  const world = new TestWorld();
  const reports: SummonsState[] = [];
  const reasons: SummonsReason[] = [];
  const legs: { token: string; down: () => void }[] = [];
  let queue = new Queue<AttachResponse>();
  let refuse: Code | undefined;
  let late = false;
  const asked: string[] = [];
  const drills: DrillResult[] = [];
  const push = (event: AttachResponse["event"]): void => queue.push(create(AttachResponseSchema, { event }));
  const plane = createRouterTransport(({ service }) => {
    service(EndpointService, {
      async *attach(_request, { signal }) {
        if (refuse) throw new ConnectError("no", refuse);
        queue = new Queue();
        push({ case: "attached", value: { site: { id: "s1", answer: policy } } as never });
        yield* queue.read(signal);
      },
      reportSummons: ({ state, reason }) => (reports.push(state), reasons.push(reason), {}),
      requestFloor: ({ withdraw }) => (asked.push(withdraw ? "withdraw" : "floor"), {}),
      answerRollCall: ({ meeting }) => {
        asked.push(`here ${meeting}`);
        if (late) throw new ConnectError("not your turn", Code.FailedPrecondition, { "muster-code": "not_called" });
        return {};
      },
      reportDrill: ({ result }) => (drills.push(result!), {}),
      getTicket: ({ meeting }) => ({ ticket: { meeting, token: "renewed", relayUrl: "http://relay" } }),
    });
  });
  const relay = createRouterTransport(({ service }) => {
    service(MediaService, {
      setView: () => ({}),
      async *watchLeg(_request, { signal }) {
        yield* new Queue<never>().read(signal);
      },
    });
  });
  const endpoint = new Endpoint({
    world,
    api: createEndpointApi(plane),
    relay: () => relay,
    openLeg: async ({ token }) => {
      const leg = { token, down: (): void => undefined };
      legs.push(leg);
      return { kind: "open", leg: { secret: "s", relayUrl: "http://relay", slots: [], onDown: (run) => void (leg.down = run), received: async () => [], close: () => undefined } };
    },
    devices: async () => ({ stream: undefined, camera, mic: "on" }),
  });
  void endpoint.run(true);
  return {
    world,
    endpoint,
    reports,
    reasons,
    legs,
    asked,
    drills,
    push,
    answersLate: () => (late = true),
    call: (meeting = "m", more: Partial<SummonsCall> = {}) => push({ case: "summons", value: { meeting, from: "Duty", autoAnswer: false, ticket: { meeting, token: "first", relayUrl: "http://relay" }, ...more } as never }),
    withdraw: (reason: string, meeting = "m") => push({ case: "withdrawn", value: { meeting, reason } as never }),
    cut: () => queue.close(),
    refuse: (code: Code | undefined) => (refuse = code),
    kind: () => endpoint.state.get().kind,
  };
}

describe("the worker's page", () => {
  it("rings before the first touch, and goes in with it", async () => {
    const { endpoint, call, kind, reports, legs } = start();
    await settle();
    expect(kind()).toBe("ready");
    call();
    await settle();
    expect(kind()).toBe("called");
    expect(reports).toEqual([SummonsState.RINGING]);
    await endpoint.press();
    await settle();
    expect(kind()).toBe("in");
    expect(legs.map(({ token }) => token)).toEqual(["first"]);
    expect(reports).toEqual([SummonsState.RINGING, SummonsState.ANSWERED, SummonsState.JOINING]);
  });

  it("answers by itself after the first touch", async () => {
    const { endpoint, call, kind } = start();
    await settle();
    await endpoint.press();
    call();
    await settle();
    expect(kind()).toBe("in");
  });

  it("comes back by itself after a loss, with a new ticket", async () => {
    const { endpoint, call, kind, legs, world } = start();
    await settle();
    await endpoint.press();
    call();
    await settle();
    legs[0]!.down();
    await settle();
    expect(kind()).toBe("lost");
    await world.pass(1_000);
    expect(kind()).toBe("in");
    expect(legs.map(({ token }) => token)).toEqual(["first", "renewed"]);
  });

  it("stays in while only the control plane is away, and ignores the call that is sent again", async () => {
    const { endpoint, call, kind, legs, world, cut } = start();
    await settle();
    await endpoint.press();
    call();
    await settle();
    cut();
    await settle();
    expect(kind()).toBe("in");
    await world.pass(2_000);
    call();
    await settle();
    expect(kind()).toBe("in");
    expect(legs).toHaveLength(1);
  });

  it("does not go back by itself into a meeting that the person has left", async () => {
    const { endpoint, call, kind, reports } = start();
    await settle();
    await endpoint.press();
    call();
    await settle();
    endpoint.leave();
    await settle();
    expect(endpoint.state.get()).toEqual({ kind: "ready", armed: true, left: true });
    expect(reports[reports.length - 1]).toBe(SummonsState.DECLINED);
    call();
    await settle();
    expect(kind()).toBe("called");
    call("another");
    await settle();
    expect(kind()).toBe("in");
  });

  it("tells an ended meeting from a device that took over", async () => {
    const first = start();
    await settle();
    await first.endpoint.press();
    first.call();
    await settle();
    first.withdraw("ended");
    await settle();
    expect(first.endpoint.state.get()).toEqual({ kind: "ended", how: "ended" });
    first.call("next");
    await settle();
    expect(first.kind()).toBe("in");
    const second = start();
    await settle();
    second.call();
    await settle();
    second.withdraw("taken by another endpoint");
    await settle();
    expect(second.endpoint.state.get()).toEqual({ kind: "ended", how: "taken" });
  });

  it("says that a link is not valid, and does not go on trying", async () => {
    const { refuse, cut, kind, world } = start();
    await settle();
    refuse(Code.Unauthenticated);
    cut();
    await world.pass(1_000);
    expect(kind()).toBe("error");
    refuse(undefined);
    await world.pass(60_000);
    expect(kind()).toBe("error");
  });

  it("counts the time for which the network is lost", async () => {
    const { endpoint, refuse, cut, world } = start();
    await settle();
    const from = world.now();
    refuse(Code.Unavailable);
    cut();
    await world.pass(12_000);
    expect(endpoint.state.get()).toEqual({ kind: "lost", sinceMs: from, moving: false });
    refuse(undefined);
    await world.pass(5_000);
    expect(endpoint.state.get().kind).toBe("ready");
  });

  it("rings at a site whose policy it is, also after the first touch", async () => {
    const { endpoint, call, kind } = start(AnswerPolicy.RING);
    await settle();
    await endpoint.press();
    call();
    await settle();
    expect(kind()).toBe("called");
    await endpoint.press();
    await settle();
    expect(kind()).toBe("in");
  });

  it("is called away by a more urgent meeting, and comes back by itself after it", async () => {
    const { endpoint, call, withdraw, kind, legs } = start();
    await settle();
    await endpoint.press();
    call("low");
    await settle();
    withdraw("called away", "low");
    await settle();
    expect(kind()).toBe("away");
    call("high", { priority: Priority.EMERGENCY });
    await settle();
    expect(endpoint.state.get()).toEqual({ kind: "in", audioOnly: false, away: true });
    withdraw("ended", "high");
    await settle();
    expect(kind()).toBe("away");
    call("low");
    await settle();
    expect(endpoint.state.get()).toEqual({ kind: "in", audioOnly: false, away: false });
    expect(legs).toHaveLength(3);
  });

  it("does not wait for ever to be called back", async () => {
    const { endpoint, call, withdraw, world } = start();
    await settle();
    await endpoint.press();
    call();
    await settle();
    withdraw("called away");
    await world.pass(61_000);
    expect(endpoint.state.get()).toEqual({ kind: "ended", how: "ended" });
  });

  it("says that the chair has hung up", async () => {
    const { endpoint, call, withdraw } = start();
    await settle();
    await endpoint.press();
    call();
    await settle();
    withdraw("hung up");
    await settle();
    expect(endpoint.state.get()).toEqual({ kind: "ended", how: "hung_up" });
  });

  it("says that its camera is missing or busy, and comes for sound alone when it is called for that", async () => {
    for (const [camera, reason] of [["busy", SummonsReason.CAMERA_BUSY], ["missing", SummonsReason.CAMERA_MISSING], ["denied", SummonsReason.CAMERA_DENIED]] as const) {
      const { endpoint, call, legs, reports, reasons, kind } = start(AnswerPolicy.UNSPECIFIED, camera);
      await settle();
      await endpoint.press();
      call();
      await settle();
      expect(reports.slice(-2)).toEqual([SummonsState.ANSWERED, SummonsState.REFUSED]);
      expect(reasons.slice(-2)).toEqual([SummonsReason.UNSPECIFIED, reason]);
      expect([kind(), legs.length]).toEqual(["called", 0]);
      call("m", { audioOnly: true });
      await settle();
      expect(endpoint.state.get()).toEqual({ kind: "in", audioOnly: true, away: false });
      expect(legs).toHaveLength(1);
    }
  });

  it("does not ring again for sound alone where a person has just answered", async () => {
    const { endpoint, call, kind } = start(AnswerPolicy.RING, "busy");
    await settle();
    call();
    await settle();
    expect(kind()).toBe("called");
    await endpoint.press();
    await settle();
    call("m", { audioOnly: true });
    await settle();
    expect(kind()).toBe("in");
    call("other", { audioOnly: true });
    await settle();
    expect(kind()).toBe("called");
  });

  it("goes in anew for sound alone when it is called for that", async () => {
    const { endpoint, call, legs } = start();
    await settle();
    await endpoint.press();
    call();
    await settle();
    call("m", { audioOnly: true });
    await settle();
    expect(endpoint.state.get()).toEqual({ kind: "in", audioOnly: true, away: false });
    expect(legs).toHaveLength(2);
    call("m", { audioOnly: true });
    await settle();
    expect(legs).toHaveLength(2);
  });

  it("asks for the floor, and takes it back while it waits or speaks", async () => {
    const { endpoint, call, push, asked, withdraw } = start();
    await settle();
    await endpoint.press();
    await endpoint.raiseHand();
    expect(asked).toEqual([]);
    call();
    await settle();
    await endpoint.raiseHand();
    push({ case: "notice", value: { meeting: "m", floor: FloorState.WAITING, floorPlace: 2 } as never });
    await settle();
    expect(endpoint.notice.get()?.floorPlace).toBe(2);
    await endpoint.raiseHand();
    expect(asked).toEqual(["floor", "withdraw"]);
    withdraw("ended");
    await settle();
    expect(endpoint.notice.get()).toBeUndefined();
  });

  it("keeps what it was told between the answer and the way in, and nothing of another meeting", async () => {
    const { endpoint, call, push } = start();
    await settle();
    call();
    await settle();
    push({ case: "notice", value: { meeting: "m", chair: "Duty" } as never });
    push({ case: "notice", value: { meeting: "other", chair: "Nobody" } as never });
    await settle();
    await endpoint.press();
    await settle();
    expect([endpoint.state.get().kind, endpoint.notice.get()?.chair]).toEqual(["in", "Duty"]);
  });

  it("answers the roll call, and says why an answer came too late", async () => {
    const { endpoint, call, asked, answersLate } = start();
    await settle();
    await endpoint.press();
    call();
    await settle();
    await endpoint.answerRollCall();
    expect([asked, endpoint.refusal.get()]).toEqual([["here m"], undefined]);
    answersLate();
    await endpoint.answerRollCall();
    expect(endpoint.refusal.get()).toEqual({ kind: "refused", code: "not_called", message: "not your turn" });
  });

  it("tells in a drill that its camera was in use when it last asked", async () => {
    const { endpoint, push, drills, world } = start(AnswerPolicy.UNSPECIFIED, "busy");
    await settle();
    await endpoint.press();
    push({ case: "drill", value: { drill: "d", serverTimeMs: BigInt(world.now()) } as never });
    await settle();
    expect(drills.map(({ camera, detail }) => ({ camera, detail }))).toEqual([{ camera: Check.FAILED, detail: "camera in use by another program" }]);
  });

  it("checks itself in a drill without ringing", async () => {
    const { push, kind, drills, world } = start();
    await settle();
    push({ case: "drill", value: { drill: "d", serverTimeMs: BigInt(world.now() - 5_000) } as never });
    await settle();
    expect(kind()).toBe("ready");
    expect(drills.map(({ site, link, camera, clock, clockOffMs }) => ({ site, link, camera, clock, clockOffMs }))).toEqual([
      { site: "s1", link: Check.OK, camera: Check.FAILED, clock: Check.FAILED, clockOffMs: 5_000n },
    ]);
  });
});

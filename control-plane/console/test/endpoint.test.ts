import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { AttachResponseSchema, EndpointService, type AttachResponse } from "../src/gen/muster/command/v1/endpoint_pb";
import { SummonsState } from "../src/gen/muster/command/v1/types_pb";
import { MediaService } from "../src/gen/muster/media/v1/media_pb";
import { createApi } from "../src/model/api";
import { Endpoint } from "../src/model/endpoint";
import { Queue } from "./mock/queue";
import { settle, TestWorld } from "./world";

function start() {
  const world = new TestWorld();
  const reports: SummonsState[] = [];
  const legs: { token: string; down: () => void }[] = [];
  let queue = new Queue<AttachResponse>();
  let refuse: Code | undefined;
  const push = (event: AttachResponse["event"]): void => queue.push(create(AttachResponseSchema, { event }));
  const plane = createRouterTransport(({ service }) => {
    service(EndpointService, {
      async *attach(_request, { signal }) {
        if (refuse) throw new ConnectError("no", refuse);
        queue = new Queue();
        push({ case: "attached", value: { site: { id: "s1" } } as never });
        yield* queue.read(signal);
      },
      reportSummons: ({ state }) => (reports.push(state), {}),
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
    api: createApi(plane),
    relay: () => relay,
    openLeg: async ({ token }) => {
      const leg = { token, down: (): void => undefined };
      legs.push(leg);
      return { kind: "open", leg: { secret: "s", relayUrl: "http://relay", slots: [], onDown: (run) => void (leg.down = run), received: async () => [], close: () => undefined } };
    },
    devices: async () => ({ stream: undefined, camera: "missing", mic: "missing" }),
  });
  void endpoint.run(true);
  return {
    world,
    endpoint,
    reports,
    legs,
    call: (meeting = "m") => push({ case: "summons", value: { meeting, from: "Duty", autoAnswer: false, ticket: { meeting, token: "first", relayUrl: "http://relay" } } as never }),
    withdraw: (reason: string) => push({ case: "withdrawn", value: { meeting: "m", reason } as never }),
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
    expect(first.endpoint.state.get()).toEqual({ kind: "ended", taken: false });
    first.call("next");
    await settle();
    expect(first.kind()).toBe("in");
    const second = start();
    await settle();
    second.call();
    await settle();
    second.withdraw("taken by another endpoint");
    await settle();
    expect(second.endpoint.state.get()).toEqual({ kind: "ended", taken: true });
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
    expect(endpoint.state.get()).toEqual({ kind: "lost", sinceMs: from });
    refuse(undefined);
    await world.pass(5_000);
    expect(endpoint.state.get().kind).toBe("ready");
  });
});

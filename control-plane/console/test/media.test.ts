import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { SlotStateSchema, SlotStatus } from "../src/gen/muster/media/v1/media_pb";
import { reasonOf } from "../src/model/media/devices";
import { layersFor } from "../src/model/media/rtc";
import { bars, Slot } from "../src/model/media/slots";

describe("the layers of the own camera", () => {
  it.each([
    [1080, ["q", "h", "f"]],
    [720, ["q", "h", "f"]],
    [480, ["h", "f"]],
    [240, [undefined]],
    [0, [undefined]],
  ])("for %d lines are %j, smallest first", (height, rids) => {
    const layers = layersFor(height);
    expect(layers.map(({ rid }) => rid)).toEqual(rids);
    const scales = layers.map(({ scaleResolutionDownBy }) => scaleResolutionDownBy ?? 1);
    expect(scales).toEqual([...scales].sort((a, b) => b - a));
  });
});

describe("why there is no camera", () => {
  it.each([["NotAllowedError", "denied"], ["NotReadableError", "busy"], ["NotFoundError", "missing"], ["OverconstrainedError", "missing"]])("%s is %s", (name, state) => {
    expect(reasonOf(Object.assign(new Error(), { name }))).toBe(state);
  });
});

describe("a slot", () => {
  const received = (packets: number, lost: number, frames = 0, freezes = 0) => ({ mid: "0", frames, packets, lost, bytes: packets * 1_000, freezes });
  const state = (status: SlotStatus, site = "a") => create(SlotStateSchema, { status, source: { site } });

  it("measures between two readings", () => {
    const slot = new Slot("wall0");
    slot.measure(0, received(100, 0, 10));
    expect(slot.health.get()).toBeUndefined();
    slot.measure(2_000, received(300, 10, 60));
    expect(slot.health.get()).toEqual({ fps: 25, bps: 800_000, lossPermille: 48, froze: false });
  });

  it("does not measure over a new leg, whose counters start again", () => {
    const slot = new Slot("wall0");
    slot.measure(0, received(1_000, 0));
    slot.measure(2_000, received(5, 0));
    expect(slot.health.get()).toBeUndefined();
  });

  it("remembers since when it shows a site, not when it was last told so", () => {
    const slot = new Slot("wall0");
    slot.setState(state(SlotStatus.LIVE), 10);
    slot.setState(state(SlotStatus.LIVE), 20);
    expect(slot.stateAt).toBe(10);
    slot.setState(state(SlotStatus.LIVE, "b"), 30);
    expect(slot.stateAt).toBe(30);
  });

  it.each([
    [SlotStatus.LIVE, 0, false, 3],
    [SlotStatus.LIVE, 30, false, 2],
    [SlotStatus.LIVE, 150, false, 1],
    [SlotStatus.LIVE, 0, true, 1],
    [SlotStatus.STALE, 0, false, 0],
  ])("status %d with %d permille lost, frozen %s, has %d bars", (status, lossPermille, froze, count) => {
    expect(bars(state(status), { fps: 25, bps: 1, lossPermille, froze }).bars).toBe(count);
  });
});

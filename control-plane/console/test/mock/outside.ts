// The world of `vite --mode mock`: 140 sites of East Lake, pictures drawn on canvases instead of a relay. What stands
// in the address after `?` chooses a situation: empty, norelay, nocamera, lost (control plane away in a meeting), stale.

import { create } from "@bufbuild/protobuf";
import { createRouterTransport } from "@connectrpc/connect";
import csv from "../../../../data/eastlake.csv?raw";
import { MediaService, SlotStatus, SourceKind, WatchLegResponseSchema, type WatchLegResponse } from "../../src/gen/muster/media/v1/media_pb";
import type { Capture } from "../../src/model/media/devices";
import type { LegConnection, OpenLeg } from "../../src/model/media/rtc";
import { browserWorld } from "../../src/model/ports";
import type { Outside } from "../../src/outside";
import { MockControlPlane } from "./control-plane";
import { Queue } from "./queue";
import { readTree } from "./tree";

const HUES = [205, 160, 30, 265, 340, 95];

class Painting {
  readonly canvas = document.createElement("canvas");
  name = "";
  constructor() {
    this.canvas.width = 320;
    this.canvas.height = 180;
    setInterval(() => this.paint(), 200);
  }
  paint(): void {
    const draw = this.canvas.getContext("2d")!;
    const hue = HUES[[...this.name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % HUES.length];
    draw.fillStyle = `hsl(${hue} 25% 22%)`;
    draw.fillRect(0, 0, 320, 180);
    draw.fillStyle = `hsl(${hue} 30% 34%)`;
    draw.fillRect(0, 120, 320, 60);
    draw.beginPath();
    draw.arc(160, 90 + 3 * Math.sin(Date.now() / 700), 32, 0, 7);
    draw.fillStyle = `hsl(${hue} 20% 62%)`;
    draw.fill();
    draw.fillRect(118, 128, 84, 52);
  }
}

export function mockOutside(): Outside {
  const situation = new URLSearchParams(location.search);
  const tree = situation.has("empty") ? { units: [], sites: [] } : readTree(csv);
  const sites = tree.sites.map((site) => site.id);
  const plane = new MockControlPlane({
    ...tree,
    offline: [sites[33]!, sites[77]!],
    relayOnline: !situation.has("norelay"),
    delay: (at) => 300 + at * 12,
  });
  plane.beat((ms, run) => setTimeout(run, ms));
  const transport = plane.transport();
  Object.assign(window, { mockPlane: plane });

  let paintings = new Map<string, Painting>();
  let queue = new Queue<WatchLegResponse>();
  const say = (slot: string, site: string, status: SlotStatus, ageMs = 0): void =>
    queue.push(create(WatchLegResponseSchema, { event: { case: "slot", value: { slot, status, ageMs, width: 320, height: 180, source: { site, kind: SourceKind.CAMERA } } } }));
  const openLeg: OpenLeg = async (_ticket, _own, wallSlots) => {
    paintings = new Map();
    const names = ["stage", "content", ...Array.from({ length: wallSlots }, (_, at) => `wall${at}`)];
    const slots = names.map((name) => {
      const painting = new Painting();
      paintings.set(name, painting);
      return { name, mid: name, stream: painting.canvas.captureStream(5) };
    });
    const leg: LegConnection = { secret: "s", relayUrl: "http://relay.mock", slots, onDown: () => undefined, received: async () => [], close: () => undefined };
    return { kind: "open", leg };
  };
  const relay = createRouterTransport(({ service }) => {
    service(MediaService, {
      setView: ({ wishes }) => {
        for (const { slot, what } of wishes) {
          const site = what.case === "source" ? what.value.site : plane.meeting?.stage?.broadcastSite || "desk:duty";
          const painting = paintings.get(slot);
          if (!painting) continue;
          painting.name = site;
          const stale = situation.has("stale") && slot === "wall5";
          const away = !site.startsWith("desk:") && !plane.presence.get(site)?.online;
          setTimeout(() => say(slot, site, away ? SlotStatus.ABSENT : SlotStatus.LIVE), 150);
          if (stale) setTimeout(() => say(slot, site, SlotStatus.STALE, 4_000), 2_000);
        }
        if (wishes.length > 5) queue.push(create(WatchLegResponseSchema, { event: { case: "speakers", value: { sites: [sites[7]!] } } }));
        return {};
      },
      async *watchLeg(_request, { signal }) {
        queue = new Queue();
        yield create(WatchLegResponseSchema, { event: { case: "notice", value: {} } });
        yield* queue.read(signal);
      },
    });
  });
  const devices = async (): Promise<Capture> => {
    if (situation.has("nocamera")) return { stream: undefined, camera: "denied", mic: "denied" };
    const painting = new Painting();
    painting.name = "desk";
    return { stream: painting.canvas.captureStream(5), camera: "on", mic: "on" };
  };
  const screen = async (): Promise<MediaStream> => {
    const painting = new Painting();
    painting.name = "screen";
    return painting.canvas.captureStream(5);
  };
  return { world: browserWorld(), controlPlane: (token) => bearerAware(transport, token), relay: () => relay, openLeg, devices, screen };
}

/** A router transport runs no interceptors of its own: the bearer goes on here. */
function bearerAware(transport: ReturnType<MockControlPlane["transport"]>, token: () => string): typeof transport {
  const withBearer = (headers: HeadersInit | undefined): Headers => {
    const all = new Headers(headers);
    all.set("authorization", `Bearer ${token()}`);
    return all;
  };
  return {
    unary: (method, signal, timeout, header, input, values) => transport.unary(method, signal, timeout, withBearer(header), input, values),
    stream: (method, signal, timeout, header, input, values) => transport.stream(method, signal, timeout, withBearer(header), input, values),
  };
}

// What the pages are given of the world outside them.

import type { Transport } from "@connectrpc/connect";
import type { Capture } from "./model/media/devices";
import type { OpenLeg } from "./model/media/rtc";
import type { World } from "./model/ports";

export interface Outside {
  world: World;
  /** gRPC-web to the control plane, with the bearer token that `token` says at each call. */
  controlPlane(token: () => string): Transport;
  relay(baseUrl: string, secret: string): Transport;
  openLeg: OpenLeg;
  devices?: () => Promise<Capture>;
  screen?: () => Promise<MediaStream | undefined>;
}

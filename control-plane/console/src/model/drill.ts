// What this browser can find of itself in a silent drill, without ringing, opening a window or touching a camera that
// is in use. A camera is never opened for it: what the browser lists, and what is open already, has to do.

import { create } from "@bufbuild/protobuf";
import { Check, DrillResultSchema, type DrillResult } from "../gen/muster/command/v1/command_pb";
import type { Capture, DeviceState } from "./media/devices";

/** A clock that is further off than this makes times in a log of no use. */
export const CLOCK_LIMIT_MS = 2_000;

export interface SelfCheck {
  site: string;
  /** In a meeting now. */
  inside: boolean;
  capture: Capture;
  nowMs: number;
  serverMs: number;
  devices: Pick<MediaDevices, "enumerateDevices"> | undefined;
}

function device(open: MediaStreamTrack | undefined, state: DeviceState, listed: boolean, inside: boolean): Check {
  // What this page was refused when it last asked counts more than that there is one.
  if (state === "busy" || state === "denied" || state === "insecure") return Check.FAILED;
  if (open?.readyState === "live") return inside ? Check.BUSY : Check.OK;
  return listed ? Check.OK : Check.FAILED;
}

export async function checkSelf({ site, inside, capture, nowMs, serverMs, devices }: SelfCheck): Promise<DrillResult> {
  const list = (await devices?.enumerateDevices().catch(() => undefined)) ?? [];
  const off = nowMs - serverMs;
  return create(DrillResultSchema, {
    site,
    link: Check.OK,
    camera: device(capture.stream?.getVideoTracks()[0], capture.camera, list.some(({ kind }) => kind === "videoinput"), inside),
    microphone: device(capture.stream?.getAudioTracks()[0], capture.mic, list.some(({ kind }) => kind === "audioinput"), inside),
    clock: Math.abs(off) <= CLOCK_LIMIT_MS ? Check.OK : Check.FAILED,
    clockOffMs: BigInt(Math.round(off)),
    atMs: BigInt(Math.round(serverMs)),
    detail: capture.camera === "denied" ? "camera not allowed in the browser" : capture.camera === "busy" ? "camera in use by another program" : "",
  });
}

/** How much is wrong with a site: what failed counts, what was in use hardly. */
export function badness({ link, camera, microphone, clock }: DrillResult): number {
  return [link, camera, microphone, clock].reduce((sum, check) => sum + (check === Check.FAILED ? 10 : check === Check.BUSY ? 1 : 0), link === Check.FAILED ? 100 : 0);
}

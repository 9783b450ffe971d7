// Listens to one leg until its end: what its relay says, and whether anything still arrives. Invariant: it ends once,
// with the reason; nothing of a leg is handed on after that. It opens and closes no leg: the keeper does.

import { Code, ConnectError, type Client } from "@connectrpc/connect";
import type { MediaService, WatchLegResponse } from "../../gen/muster/media/v1/media_pb";
import { sleep, type World } from "../ports";
import type { LegConnection, Received } from "./rtc";

/** The relay beats at least every 5 s. */
const HEARTBEAT_TIMEOUT_MS = 12_000;
const HEARTBEAT_MS = 5_000;
const STATS_MS = 2_000;
/** How often is looked whether anything arrives at all. */
const LOOK_MS = 400;
/** After so long the control plane is asked whether there is a better place. */
export const SUSPECT_MS = 1_000;
/** No packet in any live slot for so long. */
const SILENT_MS = 2_000;

/**
 * How a leg came to its end: the relay took another in its place, does not know it any more, or cannot be reached.
 * Replaced is a leg that was well until the relay itself closed its stream: the window that joined last has the place.
 */
export type LegEnd = "replaced" | "dismissed" | "lost";

export interface ListenerPorts {
  world: World;
  leg: LegConnection;
  media: Client<typeof MediaService>;
  /** Asks, when the leg is lost, whether the relay still knows it. */
  asks: boolean;
  handle(response: WatchLegResponse): void;
  /** Takes a reading, of which rates are made if `rates`; says whether any slot is live. */
  measure(readings: readonly Received[], rates: boolean): boolean;
  /** Since when nothing has come of what should; 0 while all is well. */
  silent(sinceMs: number): void;
  /** Nothing has come for a second, or the relay does not answer: said again and again while it is so. */
  suspect(): void;
}

/** Until the leg has come to its end, or `signal`. */
export async function listen(ports: ListenerPorts, signal: AbortSignal): Promise<LegEnd> {
  const { world, leg } = ports;
  const gone = new AbortController();
  const abort = (): void => gone.abort();
  signal.addEventListener("abort", abort, { once: true });
  leg.onDown(abort);
  void measure(ports, gone.signal);
  let failures = 0;
  let dismissed = false;
  let closedByRelay = false;
  while (!gone.signal.aborted) {
    const from = world.now();
    const { error, heardAt } = await watchOnce(ports, gone.signal);
    if (gone.signal.aborted) break;
    dismissed = isDismissal(error);
    if (dismissed) break;
    // A machine that slept finds its stream closed too, but has heard nothing for long.
    closedByRelay = !error && world.now() - heardAt <= HEARTBEAT_MS + 1_000;
    failures = world.now() - from > 5_000 ? 1 : failures + 1;
    if (error && failures > 1) ports.suspect();
    if (failures > 2) break;
    await sleep(world, 250 * failures, gone.signal);
  }
  signal.removeEventListener("abort", abort);
  gone.abort();
  if (dismissed && closedByRelay) return "replaced";
  if (!dismissed && ports.asks && !signal.aborted) dismissed = await isForgotten(ports.media);
  return dismissed ? "dismissed" : "lost";
}

async function isForgotten(media: Client<typeof MediaService>): Promise<boolean> {
  try {
    await media.setView({ wishes: [] }, { timeoutMs: 1_000 });
    return false;
  } catch (error) {
    return isDismissal(ConnectError.from(error));
  }
}

async function watchOnce({ world, media, handle }: ListenerPorts, signal: AbortSignal): Promise<{ error?: ConnectError; heardAt: number }> {
  let heardAt = world.now();
  const attempt = new AbortController();
  const abort = (): void => attempt.abort();
  signal.addEventListener("abort", abort, { once: true });
  let cancel = world.after(HEARTBEAT_TIMEOUT_MS, abort);
  try {
    for await (const response of media.watchLeg({}, { signal: attempt.signal })) {
      cancel();
      cancel = world.after(HEARTBEAT_TIMEOUT_MS, abort);
      heardAt = world.now();
      handle(response);
    }
    return { heardAt };
  } catch (error) {
    return { error: ConnectError.from(error), heardAt };
  } finally {
    cancel();
    signal.removeEventListener("abort", abort);
  }
}

/**
 * A relay that has died cannot say that a picture is stale: long before the browser calls the connection lost, nothing
 * at all arrives any more.
 */
async function measure({ world, leg, measure: take, silent, suspect }: ListenerPorts, signal: AbortSignal): Promise<void> {
  let packets = -1;
  let heardAt = world.now();
  let readAt = world.now();
  silent(0);
  while (!signal.aborted) {
    await sleep(world, LOOK_MS, signal);
    if (signal.aborted) return;
    const readings = await leg.received().catch(() => []);
    if (signal.aborted) return;
    const now = world.now();
    // A machine that slept has heard nothing and lost nothing.
    if (now - readAt > 2 * STATS_MS) readAt = heardAt = now;
    const rates = now - readAt >= STATS_MS;
    if (rates) readAt = now;
    const live = take(readings, rates);
    const sum = readings.reduce((sum, { packets }) => sum + packets, 0);
    if (sum !== packets || !live) heardAt = now;
    packets = sum;
    if (now - heardAt >= SUSPECT_MS) suspect();
    silent(now - heardAt >= SILENT_MS ? heardAt : 0);
  }
}

function isDismissal(error: ConnectError | undefined): boolean {
  return error?.code === Code.Unauthenticated || error?.code === Code.NotFound || error?.code === Code.PermissionDenied;
}

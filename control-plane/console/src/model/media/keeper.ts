// Keeps this browser in a meeting: gets a ticket, opens a leg, listens to it, sends what the views wish to see, and
// comes back by itself. Invariant: a leg that may still carry pictures is closed only when its successor has its
// answer, so that pictures go on while the control plane or the relay's HTTP port is away. It gives up only when told
// to, when the meeting has ended, or when another place took over.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Client, type Transport } from "@connectrpc/connect";
import type { JoinTicket } from "../../gen/muster/command/v1/command_pb";
import {
  MediaService,
  SlotStatus,
  SetViewRequestSchema,
  SlotWishSchema,
  SourceKind,
  type LegQuality,
  type MeetingNotice,
  type SlotWish,
  type WatchLegResponse,
} from "../../gen/muster/media/v1/media_pb";
import type { Outcome, Reason } from "../api";
import { Backoff } from "../backoff";
import { Cell, CellMap } from "../cell";
import { sleep, type World } from "../ports";
import type { LegConnection, OpenLeg } from "./rtc";
import { Slot } from "./slots";

/** The relay beats at least every 5 s. */
const LEG_HEARTBEAT_TIMEOUT_MS = 12_000;
const LEG_HEARTBEAT_MS = 5_000;
const STATS_MS = 2_000;
/** No packet in any live slot for so long. */
const SILENT_MS = 2_000;
/** Two legs in a row that the relay dismissed sooner than this: somebody else joins under this name. */
const SHORT_LIFE_MS = 10_000;

export type LegPhase =
  | { kind: "out" }
  | { kind: "joining" }
  | { kind: "in" }
  | { kind: "lost"; sinceMs: number }
  | { kind: "ended" }
  | { kind: "elsewhere" }
  | ({ kind: "refused" } & Reason);

/** What a view wishes to see in a slot, in device pixels; no site means the stage. */
export interface Wish {
  slot: string;
  site?: string;
  width: number;
  height: number;
}

export interface KeeperPorts {
  world: World;
  openLeg: OpenLeg;
  /** gRPC-web to a relay, with the leg's secret as bearer. */
  relay(baseUrl: string, secret: string): Transport;
  ticket(meeting: string): Promise<Outcome<JoinTicket>>;
  /** Gives way to another window of the same name, instead of the two throwing each other out for ever. */
  yields: boolean;
}

/**
 * How a leg came to its end: the relay took another in its place, does not know it any more, or cannot be reached.
 * Replaced is a leg that was well until the relay itself closed its stream: the window that joined last has the place.
 */
type LegEnd = "replaced" | "dismissed" | "lost";

export class Keeper {
  readonly phase = new Cell<LegPhase>({ kind: "out" });
  readonly slots = new Map<string, Slot>();
  readonly audio = new Cell<readonly MediaStream[]>([]);
  readonly speaking = new CellMap(false);
  /** Since when the relay has sent nothing of what it said was live, by this machine's clock; 0 while all is well. */
  readonly silentSince = new Cell(0);
  readonly notice = new Cell<MeetingNotice | undefined>(undefined);
  /** How the own leg fares, as the relay judges it. */
  readonly quality = new Cell<LegQuality | undefined>(undefined);
  private meeting = "";
  private own: MediaStream | undefined;
  private wallSlots = 0;
  private leg: LegConnection | undefined;
  private media: Client<typeof MediaService> | undefined;
  private wishes: readonly Wish[] = [];
  private sending = false;
  private resend = false;
  private run = new AbortController();
  private readonly backoff: Backoff;

  constructor(private readonly ports: KeeperPorts) {
    this.backoff = new Backoff(300, 5_000, () => ports.world.random());
  }

  slot(name: string): Slot {
    let slot = this.slots.get(name);
    if (!slot) {
      slot = new Slot(name);
      this.slots.set(name, slot);
    }
    return slot;
  }

  /** Joins, and stays in until `leave`. A ticket at hand saves asking for one. */
  join(meeting: string, own: MediaStream | undefined, wallSlots: number, ticket?: JoinTicket): void {
    this.run.abort();
    this.run = new AbortController();
    this.meeting = meeting;
    this.own = own;
    this.wallSlots = wallSlots;
    if (this.phase.get().kind !== "in") this.phase.set({ kind: "joining" });
    this.backoff.reset();
    void this.stay(this.run.signal, ticket);
  }

  /** The same meeting with other tracks or more slots: a new leg takes the place of the old. */
  renew(own: MediaStream | undefined, wallSlots: number): void {
    if (this.meeting) this.join(this.meeting, own, wallSlots);
  }

  /** `gone`: the relay has closed the leg, or is about to. */
  leave(gone = false): void {
    this.end({ kind: "out" }, gone);
  }

  setWishes(wishes: readonly Wish[]): void {
    this.wishes = wishes;
    void this.sendWishes();
  }

  /** The page goes away: says goodbye and no more. */
  goodbye(): void {
    this.leg?.close();
  }

  private end(phase: LegPhase, gone = phase.kind === "ended" || phase.kind === "elsewhere"): void {
    this.run.abort();
    this.meeting = "";
    this.drop(gone);
    for (const slot of this.slots.values()) slot.forget();
    this.audio.set([]);
    this.speaking.resetExcept(new Set());
    this.notice.set(undefined);
    this.quality.set(undefined);
    this.silentSince.set(0);
    this.phase.set(phase);
  }

  private drop(gone: boolean): void {
    const leg = this.leg;
    this.leg = undefined;
    this.media = undefined;
    leg?.close(gone);
  }

  private async stay(signal: AbortSignal, first?: JoinTicket): Promise<void> {
    let ticket = first;
    let dismissals = 0;
    while (!signal.aborted) {
      const opened = await this.open(ticket, signal);
      ticket = undefined;
      if (signal.aborted) return;
      if (opened) {
        const from = this.ports.world.now();
        const end = await this.listen(opened, signal);
        const short = end === "dismissed" && this.ports.world.now() - from < SHORT_LIFE_MS;
        dismissals = short ? dismissals + 1 : 0;
        if (end === "replaced" && this.ports.yields && !signal.aborted) return this.end({ kind: "elsewhere" });
      }
      if (signal.aborted) return;
      if (this.ports.yields && dismissals > 1) return this.end({ kind: "elsewhere" });
      this.phase.update((was) =>
        was.kind === "lost" || was.kind === "joining" ? was : { kind: "lost", sinceMs: this.ports.world.now() },
      );
      await sleep(this.ports.world, this.backoff.next(), signal);
    }
  }

  private async open(given: JoinTicket | undefined, signal: AbortSignal): Promise<LegConnection | undefined> {
    const ticket = given ?? (await this.ask(signal));
    if (!ticket || signal.aborted) return undefined;
    const result = await this.ports.openLeg(ticket, this.own, this.wallSlots);
    if (result.kind !== "open") return undefined;
    if (signal.aborted) {
      result.leg.close();
      return undefined;
    }
    const before = this.leg;
    this.take(result.leg);
    before?.close(true);
    return result.leg;
  }

  private async ask(signal: AbortSignal): Promise<JoinTicket | undefined> {
    const answer = await this.ports.ticket(this.meeting);
    if (signal.aborted) return undefined;
    if (answer.kind === "ok") return answer.value;
    if (answer.kind === "unreachable") return undefined;
    // "No relay" passes; that the meeting is over or not ours does not.
    if (answer.kind === "refused" && this.phase.get().kind === "lost") return undefined;
    const reason = answer.kind === "signed_out" ? { code: "unauthenticated", message: "" } : answer;
    this.end({ kind: "refused", code: reason.code, message: reason.message });
    return undefined;
  }

  private take(leg: LegConnection): void {
    this.leg = leg;
    this.media = createClient(MediaService, this.ports.relay(leg.relayUrl, leg.secret));
    const sound: MediaStream[] = [];
    for (const { name, stream } of leg.slots) {
      if (name.startsWith("audio")) sound.push(stream);
      else this.slot(name).adopt(stream);
    }
    this.audio.set(sound);
    this.phase.set({ kind: "in" });
    void this.sendWishes();
  }

  /** Until the leg has come to its end. */
  private async listen(leg: LegConnection, signal: AbortSignal): Promise<LegEnd> {
    const gone = new AbortController();
    const abort = (): void => gone.abort();
    signal.addEventListener("abort", abort, { once: true });
    leg.onDown(abort);
    void this.measure(leg, gone.signal);
    const opened = this.ports.world.now();
    let failures = 0;
    let dismissed = false;
    let closedByRelay = false;
    while (!gone.signal.aborted) {
      const from = this.ports.world.now();
      const { error, heardAt } = await this.watchOnce(leg, gone.signal);
      if (gone.signal.aborted) break;
      dismissed = isDismissal(error);
      if (dismissed) break;
      // A machine that slept finds its stream closed too, but has heard nothing for long.
      closedByRelay = !error && this.ports.world.now() - heardAt <= LEG_HEARTBEAT_MS + 1_000;
      failures = this.ports.world.now() - from > 5_000 ? 1 : failures + 1;
      if (failures > 2) break;
      await sleep(this.ports.world, 250 * failures, gone.signal);
    }
    signal.removeEventListener("abort", abort);
    gone.abort();
    if (this.ports.world.now() - opened > SHORT_LIFE_MS) this.backoff.reset();
    if (dismissed && closedByRelay) return "replaced";
    if (!dismissed && this.ports.yields && !signal.aborted) dismissed = await this.isDismissed();
    return dismissed ? "dismissed" : "lost";
  }

  /** Asks the relay whether it still knows the leg. */
  private async isDismissed(): Promise<boolean> {
    try {
      await this.media?.setView({ wishes: [] }, { timeoutMs: 1_000 });
      return false;
    } catch (error) {
      return isDismissal(ConnectError.from(error));
    }
  }

  private async watchOnce(leg: LegConnection, signal: AbortSignal): Promise<{ error?: ConnectError; heardAt: number }> {
    let heardAt = this.ports.world.now();
    const attempt = new AbortController();
    const abort = (): void => attempt.abort();
    signal.addEventListener("abort", abort, { once: true });
    let cancel = this.ports.world.after(LEG_HEARTBEAT_TIMEOUT_MS, abort);
    try {
      for await (const response of this.media!.watchLeg({}, { signal: attempt.signal })) {
        cancel();
        cancel = this.ports.world.after(LEG_HEARTBEAT_TIMEOUT_MS, abort);
        heardAt = this.ports.world.now();
        this.handle(leg, response);
      }
      return { heardAt };
    } catch (error) {
      return { error: ConnectError.from(error), heardAt };
    } finally {
      cancel();
      signal.removeEventListener("abort", abort);
    }
  }

  private handle(leg: LegConnection, { event }: WatchLegResponse): void {
    switch (event.case) {
      case "slot": {
        const track = leg.slots.find((slot) => slot.mid === event.value.slot);
        if (track) this.slots.get(track.name)?.setState(event.value, performance.now());
        return;
      }
      case "speakers": {
        const loud = new Set(event.value.sites);
        this.speaking.resetExcept(loud);
        for (const site of loud) this.speaking.set(site, true);
        return;
      }
      case "quality":
        return this.quality.set(event.value);
      case "notice":
        if (event.value.ended) return this.end({ kind: "ended" });
        return this.notice.set(event.value);
      default:
        return;
    }
  }

  private async measure(leg: LegConnection, signal: AbortSignal): Promise<void> {
    const names = new Map(leg.slots.map((slot) => [slot.mid, slot.name]));
    let packets = -1;
    let heardAt = this.ports.world.now();
    this.silentSince.set(0);
    while (!signal.aborted) {
      await sleep(this.ports.world, STATS_MS, signal);
      if (signal.aborted) return;
      const at = performance.now();
      const readings = await leg.received().catch(() => []);
      if (signal.aborted) return;
      let sum = 0;
      let live = false;
      for (const received of readings) {
        sum += received.packets;
        const slot = this.slots.get(names.get(received.mid) ?? "");
        slot?.measure(at, received);
        live ||= slot?.state.get()?.status === SlotStatus.LIVE;
      }
      // A relay that has died cannot say that a picture is stale: long before the browser calls the connection lost,
      // nothing at all arrives any more.
      if (sum !== packets || !live) heardAt = this.ports.world.now();
      packets = sum;
      this.silentSince.set(this.ports.world.now() - heardAt >= SILENT_MS ? heardAt : 0);
    }
  }

  /** One request in flight; what changed meanwhile goes with the next. */
  private async sendWishes(): Promise<void> {
    if (this.sending) {
      this.resend = true;
      return;
    }
    const { leg, media } = this;
    if (!leg || !media) return;
    this.sending = true;
    try {
      await media.setView(create(SetViewRequestSchema, { wishes: wire(leg, this.wishes) }), { timeoutMs: 3_000 });
    } catch (error) {
      // The relay is away or has dropped the leg: the listener finds out; try again meanwhile. A wish that it calls
      // wrong would be wrong again.
      const wrong = ConnectError.from(error).code === Code.InvalidArgument;
      if (!wrong) await sleep(this.ports.world, 500, this.run.signal);
      this.resend ||= !wrong && this.leg === leg && !this.run.signal.aborted;
    }
    this.sending = false;
    if (!this.resend && this.leg === leg) return;
    this.resend = false;
    void this.sendWishes();
  }
}

function isDismissal(error: ConnectError | undefined): boolean {
  return error?.code === Code.Unauthenticated || error?.code === Code.NotFound || error?.code === Code.PermissionDenied;
}

function wire(leg: LegConnection, wishes: readonly Wish[]): SlotWish[] {
  const mids = new Map(leg.slots.map((slot) => [slot.name, slot.mid]));
  return wishes.flatMap(({ slot, site, width, height }) => {
    const mid = mids.get(slot);
    if (mid === undefined) return [];
    const what: SlotWish["what"] =
      site === undefined
        ? { case: "stage", value: { $typeName: "muster.media.v1.StageRef" } }
        : { case: "source", value: { $typeName: "muster.media.v1.SourceRef", site, kind: SourceKind.CAMERA } };
    return [create(SlotWishSchema, { slot: mid, what, maxWidth: width, maxHeight: height })];
  });
}

// Keeps this browser in a meeting: gets a ticket, opens a leg, has it listened to (listener.ts) and the views' wishes sent
// (wishes.ts), and comes back by itself. Invariant: a leg that may still carry pictures is closed only when its successor has its
// answer, so that pictures go on while the control plane or the relay's HTTP port is away. It gives up only when told
// to, when the meeting has ended, or when another place took over.

import { createClient, type Transport } from "@connectrpc/connect";
import type { JoinTicket } from "../../gen/muster/command/v1/command_pb";
import {
  MediaService,
  SlotStatus,
  type LegQuality,
  type MeetingNotice,
  type WatchLegResponse,
} from "../../gen/muster/media/v1/media_pb";
import type { Outcome, Reason } from "../api";
import { Backoff } from "../backoff";
import { Cell, CellMap } from "../cell";
import { sleep, type World } from "../ports";
import { listen } from "./listener";
import type { LegConnection, OpenLeg, Own, Received } from "./rtc";
import { Slot } from "./slots";
import { Wishes, type OpenLegAt, type Wish } from "./wishes";

export type { Wish };

/** Two legs in a row that the relay dismissed sooner than this: somebody else joins under this name. */
const SHORT_LIFE_MS = 10_000;

/** A relay that is lost, and the placement under which it carried the meeting. */
export interface Lost {
  relay: string;
  epoch: bigint;
}

/** How often the control plane is asked for another place while nothing comes. */
const ASK_AGAIN_MS = 1_000;

export type LegPhase =
  | { kind: "out" }
  | { kind: "joining" }
  | { kind: "in" }
  | { kind: "lost"; sinceMs: number }
  | { kind: "ended" }
  | { kind: "elsewhere" }
  | ({ kind: "refused" } & Reason);

export interface KeeperPorts {
  world: World;
  openLeg: OpenLeg;
  /** gRPC-web to a relay, with the leg's secret as bearer. */
  relay(baseUrl: string, secret: string): Transport;
  /** `lost`: that no media comes from there, so that the meeting may be placed anew. */
  ticket(meeting: string, lost?: Lost): Promise<Outcome<JoinTicket>>;
  /** Gives way to another window of the same name, instead of the two throwing each other out for ever. */
  yields: boolean;
}

export class Keeper {
  readonly phase = new Cell<LegPhase>({ kind: "out" });
  readonly slots = new Map<string, Slot>();
  readonly audio = new Cell<readonly MediaStream[]>([]);
  readonly speaking = new CellMap(false);
  /** Since when the relay has sent nothing of what it said was live, by this machine's clock; 0 while all is well. */
  readonly silentSince = new Cell(0);
  /** On the way to another relay, because this one is lost. */
  readonly moving = new Cell(false);
  readonly notice = new Cell<MeetingNotice | undefined>(undefined);
  /** How the own leg fares, as the relay judges it. */
  readonly quality = new Cell<LegQuality | undefined>(undefined);
  private meeting = "";
  private own: Own = {};
  private wallSlots = 0;
  private open: OpenLegAt | undefined;
  /** Where the leg is, or was tried last. */
  private place: Lost | undefined;
  private lost = false;
  private moved: JoinTicket | undefined;
  private suspectedAt = 0;
  private readonly wishes: Wishes;
  private run = new AbortController();
  private readonly backoff: Backoff;

  constructor(private readonly ports: KeeperPorts) {
    this.backoff = new Backoff(300, 5_000, () => ports.world.random());
    this.wishes = new Wishes(ports.world, () => this.open, () => this.run.signal);
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
  join(meeting: string, own: Own, wallSlots: number, ticket?: JoinTicket): void {
    this.run.abort();
    this.run = new AbortController();
    if (this.meeting !== meeting) this.lost = false;
    this.meeting = meeting;
    this.own = own;
    this.wallSlots = wallSlots;
    if (this.phase.get().kind !== "in") this.phase.set({ kind: "joining" });
    this.backoff.reset();
    void this.stay(this.run.signal, ticket);
  }

  /** The same meeting with other tracks or more slots: a new leg takes the place of the old. */
  renew(own: Own, wallSlots: number): void {
    if (this.meeting) this.join(this.meeting, own, wallSlots);
  }

  /** `gone`: the relay has closed the leg, or is about to. */
  leave(gone = false): void {
    this.end({ kind: "out" }, gone);
  }

  setWishes(wishes: readonly Wish[]): void {
    this.wishes.set(wishes);
  }

  /** The page goes away: says goodbye and no more. */
  goodbye(): void {
    this.open?.leg.close();
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
    this.moving.set(false);
    this.lost = false;
    this.moved = undefined;
    this.phase.set(phase);
  }

  private drop(gone: boolean): void {
    const before = this.open;
    this.open = undefined;
    before?.leg.close(gone);
  }

  private async stay(signal: AbortSignal, first?: JoinTicket): Promise<void> {
    let ticket = first;
    let dismissals = 0;
    while (!signal.aborted) {
      const opened = await this.enter(ticket, signal);
      ticket = undefined;
      if (signal.aborted) return;
      if (opened) {
        const from = this.ports.world.now();
        const end = await this.listen(opened, signal);
        this.lost = end === "lost";
        const lived = this.ports.world.now() - from;
        if (lived > SHORT_LIFE_MS) this.backoff.reset();
        const short = end === "dismissed" && lived < SHORT_LIFE_MS;
        dismissals = short ? dismissals + 1 : 0;
        if (end === "replaced" && this.ports.yields && !signal.aborted) return this.end({ kind: "elsewhere" });
      }
      if (signal.aborted) return;
      ticket = this.moved;
      this.moved = undefined;
      if (ticket) continue;
      if (this.ports.yields && dismissals > 1) return this.end({ kind: "elsewhere" });
      this.phase.update((was) =>
        was.kind === "lost" || was.kind === "joining" ? was : { kind: "lost", sinceMs: this.ports.world.now() },
      );
      await sleep(this.ports.world, this.backoff.next(), signal);
    }
  }

  private async enter(given: JoinTicket | undefined, signal: AbortSignal): Promise<OpenLegAt | undefined> {
    const ticket = given ?? (await this.ask(signal));
    if (!ticket || signal.aborted) return undefined;
    this.place = { relay: ticket.relay, epoch: ticket.epoch };
    const result = await this.ports.openLeg(ticket, this.own, this.wallSlots);
    if (result.kind === "unreachable") this.lost = true;
    if (result.kind !== "open") return undefined;
    if (signal.aborted) {
      result.leg.close();
      return undefined;
    }
    const before = this.open;
    const opened = this.take(result.leg);
    before?.leg.close(true);
    return opened;
  }

  private async ask(signal: AbortSignal): Promise<JoinTicket | undefined> {
    const answer = await this.ports.ticket(this.meeting, this.lost ? this.place : undefined);
    if (signal.aborted) return undefined;
    if (answer.kind === "ok") {
      this.moving.set(this.isElsewhere(answer.value));
      return answer.value;
    }
    if (answer.kind === "unreachable") return undefined;
    // "No relay" passes; that the meeting is over or not ours does not.
    if (answer.kind === "refused" && this.phase.get().kind === "lost") return undefined;
    const reason = answer.kind === "signed_out" ? { code: "unauthenticated", message: "" } : answer;
    this.end({ kind: "refused", code: reason.code, message: reason.message });
    return undefined;
  }

  private isElsewhere(ticket: JoinTicket): boolean {
    return this.place !== undefined && ticket.relay !== "" && (ticket.relay !== this.place.relay || ticket.epoch !== this.place.epoch);
  }

  /** Asks whether the meeting has another place by now; if so, the leg goes there. If not, it stays as it is. */
  private async suspect(signal: AbortSignal, move: () => void): Promise<void> {
    const now = this.ports.world.now();
    if (signal.aborted || !this.place?.relay || now - this.suspectedAt < ASK_AGAIN_MS) return;
    this.suspectedAt = now;
    const answer = await this.ports.ticket(this.meeting, this.place);
    if (signal.aborted || answer.kind !== "ok" || !this.isElsewhere(answer.value)) return;
    this.moved = answer.value;
    this.moving.set(true);
    this.phase.update((was) => (was.kind === "lost" ? was : { kind: "lost", sinceMs: this.silentSince.get() || now }));
    move();
  }

  private take(leg: LegConnection): OpenLegAt {
    const opened = { leg, media: createClient(MediaService, this.ports.relay(leg.relayUrl, leg.secret)) };
    this.open = opened;
    const sound: MediaStream[] = [];
    for (const { name, stream } of leg.slots) {
      if (name.startsWith("audio")) sound.push(stream);
      else this.slot(name).adopt(stream);
    }
    this.audio.set(sound);
    this.lost = false;
    this.moving.set(false);
    this.phase.set({ kind: "in" });
    void this.wishes.send();
    return opened;
  }

  private async listen({ leg, media }: OpenLegAt, signal: AbortSignal) {
    const names = new Map(leg.slots.map((slot) => [slot.mid, slot.name]));
    const here = new AbortController();
    const abort = (): void => here.abort();
    signal.addEventListener("abort", abort, { once: true });
    const end = await listen(
      {
        world: this.ports.world,
        leg,
        media,
        asks: this.ports.yields,
        handle: (response) => this.handle(leg, response),
        measure: (readings, rates) => this.measure(names, readings, rates),
        silent: (sinceMs) => this.silentSince.set(sinceMs),
        suspect: () => void this.suspect(here.signal, abort),
      },
      here.signal,
    );
    abort();
    signal.removeEventListener("abort", abort);
    return end;
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

  private measure(names: ReadonlyMap<string, string>, readings: readonly Received[], rates: boolean): boolean {
    const at = performance.now();
    let live = false;
    for (const received of readings) {
      const slot = this.slots.get(names.get(received.mid) ?? "");
      if (rates) slot?.measure(at, received);
      live ||= slot?.state.get()?.status === SlotStatus.LIVE;
    }
    return live;
  }
}

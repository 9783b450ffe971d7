// The endpoint in a community worker's browser: attaches with the secret of the link, is called, answers (by itself
// after the first touch, unless the site's policy is to ring), goes in, asks for the floor, answers the roll call, comes
// back after a loss and after a more urgent meeting. Invariant: a meeting that the person has left is not entered again
// without a touch; everything else recovers alone. It shows nothing.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { JoinTicket } from "../gen/muster/command/v1/command_pb";
import {
  AttachRequestSchema,
  ReportSummonsRequestSchema,
  ReportDrillRequestSchema,
  type AttachResponse,
  type DrillCall,
  type EndpointNotice,
  type SummonsCall,
} from "../gen/muster/command/v1/endpoint_pb";
import { AnswerPolicy, FloorState, Priority, SummonsReason, SummonsState, type Site } from "../gen/muster/command/v1/types_pb";
import { outcome, type Failure, type Outcome } from "./api";
import { Backoff } from "./backoff";
import { Cell, computed, type Readable } from "./cell";
import { capture, NO_CAPTURE, release, switched, type Capture } from "./media/devices";
import { checkSelf } from "./drill";
import type { EndpointApi } from "./endpoint-api";
import { Keeper, type KeeperPorts, type Lost } from "./media/keeper";
import type { Own } from "./media/rtc";
import { sleep, type World } from "./ports";

/** The server beats at least every 5 s. */
const HEARTBEAT_TIMEOUT_MS = 12_000;
/** So long between two meetings is no change from one to the other any more. */
const AWAY_MS = 60_000;
const WELL_MS = 5_000;
const KEPT_ARMED = "muster.join.armed";
const VERSION = "browser 0.1";

export type EndpointError = "no_link" | "bad_link" | "refused";

/** What the page shows; `data-state` of the page is its `kind`. */
export type JoinState =
  | { kind: "connecting" }
  | { kind: "ready"; armed: boolean; left: boolean }
  | { kind: "called"; from: string; title: string; priority: Priority }
  | { kind: "joining" }
  | { kind: "in"; audioOnly: boolean; away: boolean }
  | { kind: "lost"; sinceMs: number; moving: boolean }
  | { kind: "ended"; how: Ended }
  /** A more urgent meeting calls, or has just let go: the site goes back by itself. */
  | { kind: "away" }
  | { kind: "error"; error: EndpointError; code: string; message: string };

/** How a meeting came to its end for this device. */
export type Ended = "ended" | "taken" | "hung_up" | "timed_out";

type Line = { kind: "connecting" } | { kind: "up" } | { kind: "lost"; sinceMs: number };
/** Where the person is in the meeting, apart from how the network is. */
type Place =
  | { kind: "waiting" }
  | { kind: "called"; call: SummonsCall }
  | { kind: "inside"; meeting: string; audioOnly: boolean }
  | { kind: "left"; meeting: string }
  | { kind: "away" }
  | { kind: "ended"; how: Ended };

function endOf(reason: string): Ended {
  if (reason.startsWith("taken")) return "taken";
  if (reason === "hung up") return "hung_up";
  return reason === "timed out" ? "timed_out" : "ended";
}

export interface EndpointPorts {
  world: World;
  api: EndpointApi;
  openLeg: KeeperPorts["openLeg"];
  relay: KeeperPorts["relay"];
  devices?: () => Promise<Capture>;
}

export class Endpoint {
  readonly site = new Cell<Site | undefined>(undefined);
  readonly capture = new Cell<Capture>(NO_CAPTURE);
  /** What the person must know of the meeting: roll call, floor, muted, locked, its end. */
  readonly notice = new Cell<EndpointNotice | undefined>(undefined);
  /** What the last request was refused with. */
  readonly refusal = new Cell<Failure | undefined>(undefined);
  readonly keeper: Keeper;
  readonly state: Readable<JoinState>;
  private readonly line = new Cell<Line>({ kind: "connecting" });
  private readonly place = new Cell<Place>({ kind: "waiting" });
  private readonly failed = new Cell<{ error: EndpointError; code: string; message: string } | undefined>(undefined);
  private readonly armed = new Cell(false);
  private readonly backoff: Backoff;
  private readonly stopped = new AbortController();
  private asking: Promise<Capture> | undefined;
  /** The meeting from which a more urgent one has called this site. */
  private calledFrom = "";
  private serverAhead = 0;
  /** The meeting whose call was answered without a camera. */
  private pictureless = "";

  constructor(private readonly ports: EndpointPorts) {
    const { world } = ports;
    this.backoff = new Backoff(500, 4_000, () => world.random());
    this.keeper = new Keeper({
      world,
      openLeg: ports.openLeg,
      relay: ports.relay,
      ticket: (meeting, lost) => this.ticket(meeting, lost),
      // The control plane says when another endpoint of the site takes over.
      yields: false,
    });
    this.keeper.phase.subscribe((phase) => {
      if (this.place.get().kind !== "inside") return;
      if (phase.kind === "ended") this.over("ended");
      else if (phase.kind === "elsewhere") this.over("taken");
      else if (phase.kind === "refused") this.failed.set({ error: "refused", code: phase.code, message: phase.message });
    });
    this.state = computed([this.failed, this.line, this.place, this.keeper.phase, this.keeper.moving, this.armed], () => this.derive());
  }

  /** Attaches, for as long as the page lives. */
  async run(hasSecret: boolean): Promise<void> {
    if (!hasSecret) return this.failed.set({ error: "no_link", code: "", message: "" });
    const { signal } = this.stopped;
    while (!signal.aborted) {
      const from = this.ports.world.now();
      const error = await this.attachOnce(signal);
      if (signal.aborted) return;
      if (error?.code === Code.Unauthenticated || error?.code === Code.PermissionDenied || error?.code === Code.NotFound) {
        return this.failed.set({ error: "bad_link", code: "", message: error.rawMessage });
      }
      this.line.update((was) => (was.kind === "up" ? { kind: "lost", sinceMs: this.ports.world.now() } : was));
      // The first try again is at once, where the line was well before.
      if (this.ports.world.now() - from < WELL_MS) await sleep(this.ports.world, this.backoff.next(), signal);
    }
  }

  /** If this browser has been used for it before and still may use the camera, no touch is needed. */
  async armIfAllowed(): Promise<void> {
    if (this.ports.world.kept(KEPT_ARMED) !== "yes") return;
    const names = ["camera", "microphone"] as unknown as PermissionName[];
    const states = await Promise.all(
      names.map((name) => navigator.permissions?.query({ name }).then(({ state }) => state, () => "prompt")),
    );
    if (states.every((state) => state === "granted")) await this.arm();
  }

  /** The large button: gets ready, answers, goes back in or tries again, whichever it is. */
  async press(): Promise<void> {
    if (this.failed.get()?.error === "refused") {
      this.failed.set(undefined);
      this.place.set({ kind: "waiting" });
    }
    const place = this.place.get();
    await this.arm();
    if (place.kind === "called") return this.answer(place.call);
    if (place.kind === "left") return this.enter(place.meeting, undefined, false);
  }

  /** Requests the floor, or takes the request or the floor back. */
  async raiseHand(): Promise<void> {
    const place = this.place.get();
    if (place.kind !== "inside") return;
    const withdraw = (this.notice.get()?.floor ?? FloorState.UNSPECIFIED) !== FloorState.UNSPECIFIED;
    await this.ask(this.ports.api.endpoint.requestFloor({ meeting: place.meeting, withdraw }, { timeoutMs: 5_000 }));
  }

  /** A person is here: the answer to the roll call. */
  async answerRollCall(): Promise<void> {
    const place = this.place.get();
    if (place.kind !== "inside") return;
    await this.ask(this.ports.api.endpoint.answerRollCall({ meeting: place.meeting }, { timeoutMs: 5_000 }));
  }

  /** The server's time, by this machine's clock. */
  serverNow(): number {
    return this.ports.world.now() + this.serverAhead;
  }

  private async ask(call: Promise<unknown>): Promise<void> {
    const answer = await outcome(call);
    this.refusal.set(answer.kind === "ok" ? undefined : answer);
  }

  leave(): void {
    const place = this.place.get();
    if (place.kind !== "inside") return;
    this.place.set({ kind: "left", meeting: place.meeting });
    this.calledFrom = "";
    this.forgetNotice();
    this.keeper.leave();
    void this.report(place.meeting, SummonsState.DECLINED, SummonsReason.HUNG_UP);
  }

  switchMic(): void {
    this.capture.update((was) => switched(was, "mic", was.mic === "off"));
  }

  stop(): void {
    this.stopped.abort();
    this.keeper.leave();
    release(this.capture.get());
  }

  private derive(): JoinState {
    const failed = this.failed.get();
    if (failed) return { kind: "error", ...failed };
    const place = this.place.get();
    const line = this.line.get();
    if (place.kind === "inside") {
      const phase = this.keeper.phase.get();
      if (phase.kind === "in") return { kind: "in", audioOnly: place.audioOnly, away: this.calledFrom !== "" };
      if (phase.kind === "lost") return { kind: "lost", sinceMs: phase.sinceMs, moving: this.keeper.moving.get() };
      return { kind: "joining" };
    }
    if (line.kind === "connecting") return { kind: "connecting" };
    if (line.kind === "lost") return { kind: "lost", sinceMs: line.sinceMs, moving: false };
    if (place.kind === "called") return { kind: "called", from: place.call.from, title: place.call.title, priority: place.call.priority };
    if (place.kind === "ended") return { kind: "ended", how: place.how };
    if (place.kind === "away") return { kind: "away" };
    return { kind: "ready", armed: this.armed.get(), left: place.kind === "left" };
  }

  private async arm(): Promise<void> {
    this.armed.set(true);
    this.ports.world.keep(KEPT_ARMED, "yes");
    const was = this.capture.get();
    // What was refused or missing is asked for again at the next touch.
    if (!this.asking || (!was.stream && was.camera !== "asking")) {
      this.capture.set({ ...NO_CAPTURE, camera: "asking", mic: "asking" });
      this.asking = (this.ports.devices ?? capture)();
    }
    this.capture.set(await this.asking);
  }

  private async attachOnce(stop: AbortSignal): Promise<ConnectError | undefined> {
    const attempt = new AbortController();
    const abort = (): void => attempt.abort();
    stop.addEventListener("abort", abort, { once: true });
    let cancel = this.ports.world.after(HEARTBEAT_TIMEOUT_MS, abort);
    const request = create(AttachRequestSchema, { endpoint: "browser", version: VERSION });
    try {
      for await (const response of this.ports.api.endpoint.attach(request, { signal: attempt.signal })) {
        cancel();
        cancel = this.ports.world.after(HEARTBEAT_TIMEOUT_MS, abort);
        this.backoff.reset();
        this.line.set({ kind: "up" });
        this.handle(response);
      }
      return undefined;
    } catch (error) {
      return ConnectError.from(error);
    } finally {
      cancel();
      stop.removeEventListener("abort", abort);
    }
  }

  private handle({ event }: AttachResponse): void {
    switch (event.case) {
      case "attached":
        this.sync(event.value.serverTimeMs);
        return this.site.set(event.value.site);
      case "heartbeat":
        return this.sync(event.value.serverTimeMs);
      case "summons":
        return this.called(event.value);
      case "withdrawn":
        return this.withdrawn(event.value.meeting, event.value.reason);
      case "notice": {
        // It may come between the answer and the way in.
        const place = this.place.get();
        const meeting = place.kind === "inside" ? place.meeting : place.kind === "called" ? place.call.meeting : "";
        if (meeting === event.value.meeting) this.notice.set(event.value);
        return;
      }
      case "drill":
        return void this.drill(event.value);
      default:
        return;
    }
  }

  private sync(serverMs: bigint): void {
    if (serverMs > 0n) this.serverAhead = Number(serverMs) - this.ports.world.now();
  }

  private withdrawn(meeting: string, reason: string): void {
    const place = this.place.get();
    const here = place.kind === "inside" || place.kind === "left" ? place.meeting : place.kind === "called" ? place.call.meeting : "";
    if (here !== meeting) {
      // The more urgent meeting is the one that this device is in already.
      if (reason === "called away" && place.kind !== "left") this.calledFrom = meeting;
      else if (this.calledFrom === meeting) this.calledFrom = "";
      return;
    }
    if (reason === "called away") {
      this.calledFrom = place.kind === "left" ? "" : meeting;
      this.forgetNotice();
      this.goAway();
    } else this.over(endOf(reason));
    this.keeper.leave(true);
  }

  /** The meeting is over for this device; the one that it was called away from calls again. */
  private over(how: Ended): void {
    this.forgetNotice();
    if (this.calledFrom && how !== "taken") this.goAway();
    else this.place.set({ kind: "ended", how });
  }

  /** Waits to be called back; a meeting that ended meanwhile calls nobody. */
  private goAway(): void {
    const away: Place = { kind: "away" };
    this.place.set(away);
    this.ports.world.after(AWAY_MS, () => {
      if (this.place.get() !== away) return;
      this.calledFrom = "";
      this.place.set({ kind: "ended", how: "ended" });
    });
  }

  private forgetNotice(): void {
    this.notice.set(undefined);
    this.refusal.set(undefined);
  }

  private called(call: SummonsCall): void {
    const place = this.place.get();
    const phase = this.keeper.phase.get().kind;
    // The call is sent again at every attach: who is in, or on the way in, has nothing to do. For sound alone it is
    // another call.
    if (place.kind === "inside" && place.meeting === call.meeting && phase !== "out") {
      if (call.audioOnly && !place.audioOnly) return this.enter(call.meeting, call.ticket, true);
      if (phase === "lost") this.keeper.join(call.meeting, this.own(place.audioOnly), 0, call.ticket);
      return;
    }
    const leftIt = place.kind === "left" && place.meeting === call.meeting;
    const comesBack = this.calledFrom === call.meeting;
    if (comesBack) this.calledFrom = "";
    else if (place.kind === "inside") this.calledFrom = place.meeting;
    this.forgetNotice();
    this.place.set({ kind: "called", call });
    const forSound = call.audioOnly && this.pictureless === call.meeting;
    this.pictureless = "";
    const rings = this.site.get()?.answer === AnswerPolicy.RING && !call.autoAnswer && !comesBack && !forSound;
    // The first touch was the consent; `auto_answer` is for boxes that nobody touches.
    if (this.armed.get() && !leftIt && !rings) void this.answer(call);
    else void this.report(call.meeting, SummonsState.RINGING);
  }

  private async answer(call: SummonsCall): Promise<void> {
    const answered = this.report(call.meeting, SummonsState.ANSWERED);
    if (this.asking) this.capture.set(await this.asking);
    const isMeant = (): boolean => {
      const place = this.place.get();
      return place.kind === "called" && place.call === call;
    };
    if (!isMeant()) return;
    const { camera } = this.capture.get();
    if (call.audioOnly || camera === "on" || camera === "off") return this.enter(call.meeting, call.ticket, call.audioOnly);
    // The meeting says whether it wants the sound alone, and calls again for it.
    this.pictureless = call.meeting;
    await answered;
    const reason = camera === "busy" ? SummonsReason.CAMERA_BUSY : camera === "denied" ? SummonsReason.CAMERA_DENIED : SummonsReason.CAMERA_MISSING;
    if (isMeant()) await this.report(call.meeting, SummonsState.REFUSED, reason);
  }

  private enter(meeting: string, ticket: JoinTicket | undefined, audioOnly: boolean): void {
    this.place.set({ kind: "inside", meeting, audioOnly });
    this.keeper.join(meeting, this.own(audioOnly), 0, ticket);
    this.wish("");
    void this.report(meeting, SummonsState.JOINING);
  }

  /** What is to be seen: the large picture, and content where somebody shows it. */
  wish(contentSite: string): void {
    const content = { slot: "content", site: contentSite, content: true, width: 0, height: 0 };
    this.keeper.setWishes([{ slot: "stage", width: 0, height: 0 }, ...(contentSite ? [content] : [])]);
  }

  private own(audioOnly: boolean): Own {
    const { stream } = this.capture.get();
    if (!stream || !audioOnly) return { stream };
    const sound = stream.getAudioTracks();
    return { stream: sound.length ? new MediaStream(sound) : undefined };
  }

  private async drill({ drill, serverTimeMs }: DrillCall): Promise<void> {
    this.sync(serverTimeMs);
    const result = await checkSelf({
      site: this.site.get()?.id ?? "",
      inside: this.place.get().kind === "inside",
      capture: this.capture.get(),
      nowMs: this.ports.world.now(),
      serverMs: Number(serverTimeMs) || this.ports.world.now(),
      devices: typeof navigator === "undefined" ? undefined : navigator.mediaDevices,
    });
    await outcome(this.ports.api.endpoint.reportDrill(create(ReportDrillRequestSchema, { drill, result }), { timeoutMs: 5_000 }));
  }

  private async report(meeting: string, state: SummonsState, reason = SummonsReason.UNSPECIFIED): Promise<void> {
    const request = create(ReportSummonsRequestSchema, { meeting, state, reason });
    await outcome(this.ports.api.endpoint.reportSummons(request, { timeoutMs: 5_000 }));
  }

  private async ticket(meeting: string, lost?: Lost): Promise<Outcome<JoinTicket>> {
    const request = { meeting, lostRelay: lost?.relay ?? "", lostEpoch: lost?.epoch ?? 0n };
    const answer = await outcome(this.ports.api.endpoint.getTicket(request, { timeoutMs: 5_000 }));
    if (answer.kind !== "ok") return answer;
    const { ticket } = answer.value;
    return ticket ? { kind: "ok", value: ticket } : { kind: "unreachable", code: "", message: "the answer carries no ticket" };
  }
}

// The endpoint in a community worker's browser: attaches with the secret of the link, is called, answers (by itself
// after the first touch), goes in, comes back after a loss. Invariant: a meeting that the person has left is not
// entered again without a touch; everything else recovers alone. It shows nothing.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import type { JoinTicket } from "../gen/muster/command/v1/command_pb";
import {
  AttachRequestSchema,
  ReportSummonsRequestSchema,
  type AttachResponse,
  type SummonsCall,
} from "../gen/muster/command/v1/endpoint_pb";
import { SummonsReason, SummonsState, type Site } from "../gen/muster/command/v1/types_pb";
import { outcome, type Api, type Outcome } from "./api";
import { Backoff } from "./backoff";
import { Cell, computed, type Readable } from "./cell";
import { capture, NO_CAPTURE, release, switched, type Capture } from "./media/devices";
import { Keeper, type KeeperPorts } from "./media/keeper";
import { sleep, type World } from "./ports";

/** The server beats at least every 5 s. */
const HEARTBEAT_TIMEOUT_MS = 12_000;
const KEPT_ARMED = "muster.join.armed";
const VERSION = "browser 0.1";

export type EndpointError = "no_link" | "bad_link" | "refused";

/** What the page shows; `data-state` of the page is its `kind`. */
export type JoinState =
  | { kind: "connecting" }
  | { kind: "ready"; armed: boolean; left: boolean }
  | { kind: "called"; from: string; title: string }
  | { kind: "joining" }
  | { kind: "in" }
  | { kind: "lost"; sinceMs: number }
  | { kind: "ended"; taken: boolean }
  | { kind: "error"; error: EndpointError; code: string; message: string };

type Line = { kind: "connecting" } | { kind: "up" } | { kind: "lost"; sinceMs: number };
/** Where the person is in the meeting, apart from how the network is. */
type Place =
  | { kind: "waiting" }
  | { kind: "called"; call: SummonsCall }
  | { kind: "inside"; meeting: string }
  | { kind: "left"; meeting: string }
  | { kind: "ended"; taken: boolean };

export interface EndpointPorts {
  world: World;
  api: Api;
  openLeg: KeeperPorts["openLeg"];
  relay: KeeperPorts["relay"];
  devices?: () => Promise<Capture>;
}

export class Endpoint {
  readonly site = new Cell<Site | undefined>(undefined);
  readonly capture = new Cell<Capture>(NO_CAPTURE);
  readonly keeper: Keeper;
  readonly state: Readable<JoinState>;
  private readonly line = new Cell<Line>({ kind: "connecting" });
  private readonly place = new Cell<Place>({ kind: "waiting" });
  private readonly failed = new Cell<{ error: EndpointError; code: string; message: string } | undefined>(undefined);
  private readonly armed = new Cell(false);
  private readonly backoff: Backoff;
  private readonly stopped = new AbortController();
  private asking: Promise<Capture> | undefined;

  constructor(private readonly ports: EndpointPorts) {
    const { world } = ports;
    this.backoff = new Backoff(500, 4_000, () => world.random());
    this.keeper = new Keeper({
      world,
      openLeg: ports.openLeg,
      relay: ports.relay,
      ticket: (meeting) => this.ticket(meeting),
      // The control plane says when another endpoint of the site takes over.
      yields: false,
    });
    this.keeper.phase.subscribe((phase) => {
      if (this.place.get().kind !== "inside") return;
      if (phase.kind === "ended") this.place.set({ kind: "ended", taken: false });
      else if (phase.kind === "elsewhere") this.place.set({ kind: "ended", taken: true });
      else if (phase.kind === "refused") this.failed.set({ error: "refused", code: phase.code, message: phase.message });
    });
    this.state = computed([this.failed, this.line, this.place, this.keeper.phase, this.armed], () => this.derive());
  }

  /** Attaches, for as long as the page lives. */
  async run(hasSecret: boolean): Promise<void> {
    if (!hasSecret) return this.failed.set({ error: "no_link", code: "", message: "" });
    const { signal } = this.stopped;
    while (!signal.aborted) {
      const error = await this.attachOnce(signal);
      if (signal.aborted) return;
      if (error?.code === Code.Unauthenticated || error?.code === Code.PermissionDenied || error?.code === Code.NotFound) {
        return this.failed.set({ error: "bad_link", code: "", message: error.rawMessage });
      }
      this.line.update((was) => (was.kind === "up" ? { kind: "lost", sinceMs: this.ports.world.now() } : was));
      await sleep(this.ports.world, this.backoff.next(), signal);
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
    if (place.kind === "left") return this.enter(place.meeting, undefined);
  }

  leave(): void {
    const place = this.place.get();
    if (place.kind !== "inside") return;
    this.place.set({ kind: "left", meeting: place.meeting });
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
      if (phase.kind === "in") return { kind: "in" };
      if (phase.kind === "lost") return { kind: "lost", sinceMs: phase.sinceMs };
      return { kind: "joining" };
    }
    if (line.kind === "connecting") return { kind: "connecting" };
    if (line.kind === "lost") return { kind: "lost", sinceMs: line.sinceMs };
    if (place.kind === "called") return { kind: "called", from: place.call.from, title: place.call.title };
    if (place.kind === "ended") return { kind: "ended", taken: place.taken };
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
        return this.site.set(event.value.site);
      case "summons":
        return this.called(event.value);
      case "withdrawn": {
        const place = this.place.get();
        const meeting = place.kind === "inside" || place.kind === "left" ? place.meeting : place.kind === "called" ? place.call.meeting : "";
        if (meeting !== event.value.meeting) return;
        this.place.set({ kind: "ended", taken: event.value.reason.startsWith("taken") });
        return this.keeper.leave(true);
      }
      default:
        return;
    }
  }

  private called(call: SummonsCall): void {
    const place = this.place.get();
    const phase = this.keeper.phase.get().kind;
    // The call is sent again at every attach: who is in, or on the way in, has nothing to do.
    if (place.kind === "inside" && place.meeting === call.meeting && phase !== "out") {
      if (phase === "lost") this.keeper.join(call.meeting, this.capture.get().stream, 0, call.ticket);
      return;
    }
    const leftIt = place.kind === "left" && place.meeting === call.meeting;
    this.place.set({ kind: "called", call });
    // The first touch was the consent; `auto_answer` is for boxes that nobody touches.
    if (this.armed.get() && !leftIt) void this.answer(call);
    else void this.report(call.meeting, SummonsState.RINGING);
  }

  private async answer(call: SummonsCall): Promise<void> {
    void this.report(call.meeting, SummonsState.ANSWERED);
    if (this.asking) this.capture.set(await this.asking);
    const place = this.place.get();
    if (place.kind !== "called" || place.call.meeting !== call.meeting) return;
    this.enter(call.meeting, call.ticket);
  }

  private enter(meeting: string, ticket: JoinTicket | undefined): void {
    this.place.set({ kind: "inside", meeting });
    this.keeper.join(meeting, this.capture.get().stream, 0, ticket);
    this.keeper.setWishes([{ slot: "stage", width: 0, height: 0 }]);
    void this.report(meeting, SummonsState.JOINING);
  }

  private async report(meeting: string, state: SummonsState, reason = SummonsReason.UNSPECIFIED): Promise<void> {
    const request = create(ReportSummonsRequestSchema, { meeting, state, reason });
    await outcome(this.ports.api.endpoint.reportSummons(request, { timeoutMs: 5_000 }));
  }

  private async ticket(meeting: string): Promise<Outcome<JoinTicket>> {
    const answer = await outcome(this.ports.api.endpoint.getTicket({ meeting }, { timeoutMs: 5_000 }));
    if (answer.kind !== "ok") return answer;
    const { ticket } = answer.value;
    return ticket ? { kind: "ok", value: ticket } : { kind: "unreachable", code: "", message: "the answer carries no ticket" };
  }
}

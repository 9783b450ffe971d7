// A control plane of the console's tests and of `vite --mode mock`: real messages over a router transport, no network.
// It keeps one meeting at a time and lets the called sites come on air a little later. It checks no password but one.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport, type Transport } from "@connectrpc/connect";
import {
  DirectoryService,
  JoinTicketSchema,
  MeetingService,
  SessionService,
  WatchHeartbeatSchema,
  WatchResponseSchema,
  WatchService,
  WatchSnapshotSchema,
  type WatchResponse,
} from "../../src/gen/muster/command/v1/command_pb";
import { AttachResponseSchema, EndpointService, type AttachResponse } from "../../src/gen/muster/command/v1/endpoint_pb";
import {
  AccountSchema,
  Fallback,
  FloorState,
  GrantSchema,
  MeetingEventSchema,
  MeetingSchema,
  PresenceSchema,
  Priority,
  Role,
  StageSchema,
  SummonsReason,
  SummonsSchema,
  SummonsState,
  type Meeting,
  type MeetingEvent,
  type Presence,
  type Selector,
  SiteQualitySchema,
  type Site,
  type SiteQuality,
  type Stage,
  type Summons,
  type Unit,
} from "../../src/gen/muster/command/v1/types_pb";
import { LegQualitySchema } from "../../src/gen/muster/media/v1/media_pb";
import { Directory } from "../../src/model/directory";
import { ACTIONS } from "../../src/model/authority";
import { apply } from "../../src/model/meeting";
import { act, floor } from "./acts";
import { Offices } from "./offices";
import { Queue } from "./queue";

export interface MockOptions {
  units: Unit[];
  sites: Site[];
  offline?: string[];
  /** Milliseconds from the call to the picture. */
  delay?: (at: number) => number;
  relayOnline?: boolean;
}

export class MockControlPlane {
  meeting: Meeting | undefined;
  /** The newest meeting, also after its end. */
  last: Meeting | undefined;
  /** Newest first. */
  readonly ended: Meeting[] = [];
  readonly offices: Offices;
  /** What the account may do at all. */
  may: readonly string[] = ACTIONS;
  /** Every `Act` that came, by its verb. */
  readonly acted: string[] = [];
  /** The places that were called lost when a ticket was asked for. */
  readonly lost: string[] = [];
  events: MeetingEvent[] = [];
  down = false;
  /** How sites fare: told in every snapshot. */
  quality: SiteQuality[] = [];
  readonly directory: Directory;
  readonly presence = new Map<string, Presence>();
  private readonly watchers = new Set<Queue<WatchResponse>>();
  private readonly endpoints = new Set<{ site: string; queue: Queue<AttachResponse> }>();
  private number = 0;

  constructor(readonly options: MockOptions) {
    this.directory = new Directory(options.units, options.sites);
    this.offices = new Offices(this);
    const offline = new Set(options.offline);
    for (const { id } of options.sites) {
      const online = !offline.has(id);
      this.presence.set(id, create(PresenceSchema, { site: id, online, sinceMs: BigInt(Date.now() - (online ? 3_600_000 : 7_440_000)), endpoint: "agent" }));
    }
  }

  /** Cuts all streams and refuses calls until `up`. */
  cut(): void {
    this.down = true;
    for (const watcher of this.watchers) watcher.close();
  }

  up(): void {
    this.down = false;
  }

  setOnline(site: string, online: boolean): void {
    const presence = create(PresenceSchema, { site, online, sinceMs: BigInt(Date.now()), endpoint: "agent" });
    this.presence.set(site, presence);
    this.tell({ case: "presence", value: { $typeName: "muster.command.v1.PresenceChanged", presence: [presence] } });
  }

  fares(site: string, quality: MessageInitShape<typeof LegQualitySchema>): void {
    const told = create(SiteQualitySchema, { meeting: this.meeting!.id, site, quality: create(LegQualitySchema, quality) });
    this.quality = [...this.quality.filter((known) => known.site !== site), told];
    this.tell({ case: "quality", value: { $typeName: "muster.command.v1.QualityChanged", sites: [told] } });
  }

  emit(actor: string, event: MeetingEvent["event"]): void {
    const id = this.meeting?.id ?? `m${(this.number += 1)}`;
    const seq = (this.meeting?.seq ?? 0n) + 1n;
    const numbered = create(MeetingEventSchema, { meeting: id, seq, atMs: BigInt(Date.now()), actor, event });
    this.meeting = this.last = apply(this.meeting, numbered);
    this.events.push(numbered);
    this.tell({ case: "meetingEvent", value: numbered });
  }

  summons(site: string, state: SummonsState, reason = SummonsReason.UNSPECIFIED): void {
    const was = this.meeting?.summonses.find((summons) => summons.site === site);
    const onAirMs = state === SummonsState.ON_AIR ? BigInt(Date.now()) : (was?.onAirMs ?? 0n);
    const since = reason === SummonsReason.OFFLINE ? (this.presence.get(site)?.sinceMs ?? 0n) : 0n;
    const summons = create(SummonsSchema, { site, state, reason, atMs: BigInt(Date.now()), reasonSinceMs: since, pagedMs: was?.pagedMs ?? 0n, onAirMs });
    this.emit("system", { case: "summons", value: { $typeName: "muster.command.v1.SummonsChanged", summons } });
  }

  transport(): Transport {
    return createRouterTransport((router) => {
      router.service(SessionService, {
        signIn: ({ account, password }) => {
          this.check();
          if (password !== "night-shift") throw new ConnectError("no", Code.Unauthenticated);
          return { sessionToken: "s", account: this.account(account), expiresMs: BigInt(Date.now() + 3_600_000) };
        },
        signOut: () => ({}),
        whoAmI: () => {
          this.check();
          return { account: this.account("duty"), expiresMs: 0n };
        },
        listSessions: ({ account }) => ({ sessions: this.offices.sessions(account) }),
        revokeSessions: () => ({ revoked: 1 }),
      });
      router.service(DirectoryService, {
        listSites: () => ({ units: this.options.units, sites: this.options.sites, presence: [...this.presence.values()] }),
      });
      router.service(WatchService, { watch: (request, context) => this.watch(request.cursor.length > 0 ? request.cursor[0]!.seq : undefined, context.signal) });
      router.service(MeetingService, {
        previewConvene: ({ selector }) => {
          this.check();
          const sites = this.resolve(selector!);
          return { sites, doubtful: sites.filter((site) => !this.presence.get(site)?.online).map((site) => this.doubt(site)) };
        },
        convene: ({ selector, title, preset, priority, minutes }) => {
          this.check();
          const saved = this.offices.presets.find(({ id }) => id === preset);
          this.convene(this.resolve(selector ?? saved!.selector!), title || saved?.title || "", { priority: priority || saved?.priority || Priority.ROUTINE, minutes: minutes || saved?.minutes || 0, preset });
          return { meeting: this.meeting! };
        },
        callUnconnected: ({ sites }) => {
          this.check();
          const missing = this.meeting!.summonses.filter(({ site, state }) => state !== SummonsState.ON_AIR && (sites.length === 0 || sites.includes(site)));
          missing.forEach(({ site }, at) => this.page(site, at));
          return { called: missing.length };
        },
        endMeeting: () => {
          this.check();
          this.emit("duty", { case: "ended", value: { $typeName: "muster.command.v1.MeetingEnded", reason: "" } });
          if (this.last) this.ended.unshift(this.last);
          this.meeting = undefined;
          return {};
        },
        broadcastSite: ({ site }) => this.stage({ broadcastSite: site }),
        muteSites: ({ sites, muted }) => {
          const named = new Set(sites.length ? sites : this.meeting!.summonses.map((summons) => summons.site));
          const before = (this.meeting?.stage?.mutedSites ?? []).filter((site) => !named.has(site));
          return this.stage({ mutedSites: muted ? [...before, ...named] : before });
        },
        act: (request, context) => {
          this.check();
          this.acted.push(request.verb.case ?? "");
          return act(this, request, context.requestHeader.get("x-account") ?? "duty");
        },
        listMeetings: ({ includeEnded }) => {
          this.check();
          return { meetings: [this.meeting, ...(includeEnded ? this.ended : [])].flatMap((meeting) => (meeting ? [create(MeetingSchema, meeting)] : [])) };
        },
        joinAsDesk: ({ lostRelay, lostEpoch }) => {
          this.check();
          if (lostRelay) this.lost.push(`${lostRelay}/${lostEpoch}`);
          return { ticket: this.ticket("desk:duty") };
        },
      });
      this.offices.serve(router);
      router.service(EndpointService, {
        attach: (_request, context) => this.attach(context.requestHeader.get("authorization") ?? "", context.signal),
        reportSummons: ({ state }) => {
          if (state === SummonsState.JOINING) setTimeout(() => this.summons(this.workerSite(), SummonsState.ON_AIR), 200);
          return {};
        },
        requestFloor: ({ withdraw }) => (floor(this, `site:${this.workerSite()}`, this.workerSite(), withdraw ? undefined : FloorState.WAITING, 0), {}),
        answerRollCall: () => (act(this, { verb: { case: "acknowledgeRollCall", value: { site: this.workerSite() } } } as never, `site:${this.workerSite()}`), {}),
        getTicket: () => ({ ticket: this.ticket(this.workerSite()) }),
      });
    });
  }

  workerSite(): string {
    return this.directory.order[20] ?? this.directory.order[0]!;
  }

  convene(sites: string[], title: string, how: { priority?: Priority; minutes?: number; preset?: string } = {}): void {
    this.meeting = undefined;
    this.emit("duty", { case: "convened", value: { $typeName: "muster.command.v1.MeetingConvened", title, unit: this.options.units[0]?.id ?? "", chair: "duty", sites, idempotencyKey: "", priority: how.priority ?? Priority.ROUTINE, deadlineMs: 0n, endsMs: how.minutes ? BigInt(Date.now() + how.minutes * 60_000) : 0n, fallback: Fallback.NONE, preset: how.preset ?? "", schedule: "" } });
    sites.forEach((site, at) => this.page(site, at));
  }

  page(site: string, at: number): void {
    const called = [...this.endpoints].find((endpoint) => endpoint.site === site);
    if (called) {
      called.queue.push(create(AttachResponseSchema, { event: { case: "summons", value: { meeting: this.meeting!.id, title: this.meeting!.title, from: "值班员", autoAnswer: true, ticket: this.ticket(site) } } }));
      return;
    }
    const wait = this.options.delay?.(at) ?? 5;
    const summons = this.presence.get(site);
    if (!summons?.online) {
      setTimeout(() => this.summons(site, SummonsState.UNREACHABLE, SummonsReason.OFFLINE), wait);
      return;
    }
    this.summons(site, SummonsState.RINGING);
    setTimeout(() => this.meeting && this.summons(site, SummonsState.ON_AIR), wait);
  }

  private ticket(site: string) {
    return create(JoinTicketSchema, { meeting: this.meeting?.id ?? "", token: "t", relayUrl: "http://relay.mock", site });
  }

  stage(change: { [K in keyof Stage]?: Stage[K] | undefined }): object {
    this.check();
    const was = this.meeting?.stage ?? create(StageSchema);
    const stage = { ...was, ...change } as Stage;
    this.emit("duty", { case: "stage", value: { $typeName: "muster.command.v1.StageChanged", stage } });
    return {};
  }

  private async *attach(bearer: string, signal: AbortSignal): AsyncGenerator<AttachResponse> {
    this.check();
    if (!bearer.includes("good")) throw new ConnectError("link expired", Code.Unauthenticated);
    const endpoint = { site: this.workerSite(), queue: new Queue<AttachResponse>() };
    this.endpoints.add(endpoint);
    const site = this.directory.sites.get(endpoint.site)!;
    yield create(AttachResponseSchema, { event: { case: "attached", value: { site, serverTimeMs: BigInt(Date.now()) } } });
    try {
      yield* endpoint.queue.read(signal);
    } finally {
      this.endpoints.delete(endpoint);
    }
  }

  private async *watch(after: bigint | undefined, signal: AbortSignal): AsyncGenerator<WatchResponse> {
    this.check();
    const queue = new Queue<WatchResponse>();
    this.watchers.add(queue);
    const resumed = after !== undefined;
    const snapshot = create(WatchSnapshotSchema, {
      units: this.options.units,
      sites: this.options.sites,
      presence: [...this.presence.values()],
      meetings: this.meeting && !resumed ? [create(MeetingSchema, this.meeting)] : [],
      fleet: { relays: [{ id: "relay-1", online: this.options.relayOnline ?? true, legs: 0 }] },
      serverTimeMs: BigInt(Date.now()),
      resumed,
      quality: this.quality,
    });
    yield create(WatchResponseSchema, { event: { case: "snapshot", value: snapshot } });
    yield create(WatchResponseSchema, { event: { case: "permissions", value: { meeting: "", actions: [...this.may] } } });
    yield create(WatchResponseSchema, { event: { case: "service", value: { storeOk: true, busOk: true, replica: "r1", replicas: 1 } } });
    if (resumed) {
      for (const event of this.events) if (event.seq > after) yield create(WatchResponseSchema, { event: { case: "meetingEvent", value: event } });
    }
    try {
      yield* queue.read(signal);
      if (this.down) throw new ConnectError("gone", Code.Unavailable);
    } finally {
      this.watchers.delete(queue);
    }
  }

  /** Beats every second from now on, by this clock. */
  beat(after: (ms: number, run: () => void) => unknown): void {
    after(1_000, () => {
      this.tell({ case: "heartbeat", value: create(WatchHeartbeatSchema, { serverTimeMs: BigInt(Date.now()) }) });
      this.beat(after);
    });
  }

  tell(event: WatchResponse["event"]): void {
    for (const watcher of this.watchers) watcher.push(create(WatchResponseSchema, { event }));
  }

  resolve(selector: Selector): string[] {
    const chosen = new Set(selector.sites);
    for (const unit of selector.subtrees) for (const site of this.directory.units.get(unit)?.all ?? []) chosen.add(site);
    return this.directory.sort(chosen);
  }

  private doubt(site: string): Summons {
    const since = this.presence.get(site)?.sinceMs ?? 0n;
    return create(SummonsSchema, { site, state: SummonsState.UNREACHABLE, reason: SummonsReason.OFFLINE, reasonSinceMs: since });
  }

  private account(name: string) {
    const unit = this.options.units[1]?.id ?? "";
    return create(AccountSchema, { name, displayName: name === "duty" ? "值班员" : name, grants: [create(GrantSchema, { role: Role.COMMANDER, unit })] });
  }

  private check(): void {
    if (this.down) throw new ConnectError("gone", Code.Unavailable);
  }
}

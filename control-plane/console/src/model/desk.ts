// The dispatcher's desk: joins the Watch stream, the roster, the choice, the meeting in view, the wall and the own leg,
// and carries out commands; the verbs that go over `Act` are in verbs.ts. Invariant: what is shown comes from the Watch stream, never from the answer of a command,
// so that two desks always agree. A command given while the control plane is away waits and is sent when it is back.

import { create } from "@bufbuild/protobuf";
import type { ActRequest, Preset, PreviewConveneResponse, RelayState, ServiceState, WatchResponse, WatchSnapshot } from "../gen/muster/command/v1/command_pb";
import { ConveneRequestSchema } from "../gen/muster/command/v1/command_pb";
import { Layout, SelectorSchema, type Account, type Fallback, type Meeting, type MeetingEvent, type Priority, type Selector } from "../gen/muster/command/v1/types_pb";
import { outcome, type Api, type Failure, type Outcome } from "./api";
import { Arming } from "./arming";
import { Authority } from "./authority";
import { Batch, Cell } from "./cell";
import { isUnsure, withTaken } from "./chairs";
import { Clock } from "./clock";
import { Directory } from "./directory";
import { Log, type LogLine } from "./log";
import { apply, isRunning } from "./meeting";
import { capture, captureScreen, NO_CAPTURE, release, switched, type Capture } from "./media/devices";
import { Keeper, type KeeperPorts, type Lost } from "./media/keeper";
import type { Own } from "./media/rtc";
import { Plans } from "./plans";
import { sleep, type World } from "./ports";
import { Qualities } from "./quality";
import { REPORTS_AGAIN_MS, Reports } from "./reports";
import { Roster } from "./roster";
import { Selection } from "./selection";
import { Verbs } from "./verbs";
import { layoutOf, MOST_SLOTS, TILE_COUNTS, tilesOf, Wall, type TileCount } from "./wall";
import { Watch } from "./watch";

/** How long joining waits for the camera before it goes in without and adds it later. */
const CAMERA_WAIT_MS = 1_500;
export const DEFAULT_WALL_SLOTS = 16;
const POLLING_S = 10;
const PUBLISH_MS = 50;
const READ_AGAIN_MS = 1_000;
const KEPT_TILES = "muster.desk.tiles";

export interface DeskPorts {
  world: World;
  api: Api;
  openLeg: KeeperPorts["openLeg"];
  relay: KeeperPorts["relay"];
  devices?: () => Promise<Capture>;
  screen?: () => Promise<MediaStream | undefined>;
}

/** How a set of sites is convened. */
export interface Convening {
  /** The same key again gives the same meeting. */
  key: string;
  title?: string;
  selector?: Selector;
  /** What is saved under this id; what else is given wins over it. */
  preset?: string;
  priority?: Priority;
  fallback?: Fallback;
  deadlineS?: number;
  minutes?: number;
}

export class Desk {
  readonly clock: Clock;
  readonly roster: Roster;
  readonly selection = new Selection();
  readonly wall = new Wall();
  readonly watch: Watch;
  readonly keeper: Keeper;
  readonly qualities = new Qualities();
  readonly authority = new Authority();
  readonly plans: Plans;
  readonly reports: Reports;
  readonly verbs: Verbs;
  readonly arming: Arming;
  /** Whether the parts of the control plane reach each other; undefined until they have said so. */
  readonly service = new Cell<ServiceState | undefined>(undefined);
  /** What of this screen is shown to the meeting. */
  readonly shared = new Cell<MediaStream | undefined>(undefined);
  readonly loaded = new Cell(false);
  /** Meetings that have not ended. */
  readonly meetings = new Cell<readonly Meeting[]>([]);
  /** The meeting in view, also for a while after its end. */
  readonly meeting = new Cell<Meeting | undefined>(undefined);
  readonly log = new Cell<readonly LogLine[]>([]);
  readonly relays = new Cell<readonly RelayState[]>([]);
  readonly capture = new Cell<Capture>(NO_CAPTURE);
  /** Commands that wait for the control plane. */
  readonly waiting = new Cell(0);
  /** What the last command was refused with. */
  readonly refusal = new Cell<Failure | undefined>(undefined);
  /** Site that this desk alone has made large. */
  readonly enlarged = new Cell<string | undefined>(undefined);
  readonly self: string;
  /** For sheets that ask for what the Watch stream does not tell. */
  readonly api: Api;
  /** Where a reload finds the meeting that this account was in. */
  private readonly keptIn: string;
  private readonly known = new Map<string, Meeting>();
  private readonly logs = new Map<string, Log>();
  private inView = "";
  /** The layout that the meeting in view has forced on this wall. */
  private forced = Layout.LAYOUT_UNSPECIFIED;
  private wallSlots = DEFAULT_WALL_SLOTS;
  private asking: Promise<Capture> | undefined;
  private readonly publish: Batch;
  private readonly stopped = new AbortController();

  constructor(
    private readonly ports: DeskPorts,
    readonly account: Account,
  ) {
    const { world, api } = ports;
    this.api = api;
    const schedule = (run: () => void): void => void world.after(PUBLISH_MS, run);
    this.self = `desk:${account.name}`;
    this.keptIn = `muster.desk.in.${account.name}`;
    this.clock = new Clock(world);
    this.roster = new Roster(schedule);
    this.publish = new Batch(() => this.show(), schedule);
    this.plans = new Plans(api);
    this.reports = new Reports(api, world, `muster.desk.reports.${account.name}`);
    this.arming = new Arming(world);
    this.verbs = new Verbs(() => this.inView, (request) => this.act(request));
    this.setTiles(this.keptTiles());
    this.watch = new Watch(api.watch, world, (response) => this.handle(response));
    this.keeper = new Keeper({
      world,
      openLeg: ports.openLeg,
      relay: ports.relay,
      ticket: (meeting, lost) => this.ticket(meeting, lost),
      yields: true,
    });
    this.keeper.phase.subscribe((phase) => {
      if (phase.kind === "ended" || phase.kind === "elsewhere" || phase.kind === "refused") this.out();
    });
  }

  start(): void {
    void this.watch.run();
    void this.readReports();
  }

  /** Now and then, whatever the stream has told. */
  private async readReports(): Promise<void> {
    while (!this.stopped.signal.aborted) {
      await sleep(this.ports.world, REPORTS_AGAIN_MS, this.stopped.signal);
      if (this.watch.connection.get().kind === "live") await this.reports.read();
    }
  }

  /** `forget`: whoever signs in next in this tab does not go into the meeting by himself. */
  stop(forget: boolean): void {
    if (forget) this.ports.world.keep(this.keptIn, null, "tab");
    this.stopped.abort();
    this.watch.stop();
    this.keeper.leave();
    this.clock.stop();
    release(this.capture.get());
  }

  // What a dispatcher does.

  preview(selector: Selector): Promise<Outcome<PreviewConveneResponse>> {
    // The camera is asked for while the list is being read.
    void this.acquire();
    return outcome(this.ports.api.meeting.previewConvene({ selector }, { timeoutMs: 10_000 }));
  }

  async convene({ key, ...how }: Convening): Promise<Failure | undefined> {
    const request = create(ConveneRequestSchema, { ...how, idempotencyKey: key });
    const answer = await outcome(this.ports.api.meeting.convene(request, { timeoutMs: 15_000 }));
    if (answer.kind !== "ok") return answer;
    const meeting = answer.value.meeting;
    if (!meeting) return { kind: "unreachable", code: "", message: "the answer names no meeting" };
    // The stream may already be ahead of the answer.
    if ((this.known.get(meeting.id)?.seq ?? 0n) < meeting.seq) this.learn(meeting);
    await this.goIn(meeting.id);
    return undefined;
  }

  /** A key for one convening: pressing twice calls once. */
  newKey(): string {
    const { world } = this.ports;
    return `${this.account.name}-${world.now().toString(36)}-${world.random().toString(36).slice(2)}`;
  }

  /** With one action: what is saved is called as it is. */
  async convenePreset({ id }: Preset): Promise<void> {
    this.refusal.set(undefined);
    this.refusal.set(await this.convene({ key: this.newKey(), preset: id }));
  }

  /** Looks at a meeting without going in. */
  view(meeting: string): void {
    this.inView = meeting;
    this.enlarged.set(undefined);
    this.publish.mark();
    this.publish.flush();
  }

  /** The running meeting after the one in view; undefined where there is no other. */
  nextMeeting(): Meeting | undefined {
    const running = this.meetings.get();
    const at = running.findIndex(({ id }) => id === this.inView);
    const next = running[(at + 1) % Math.max(1, running.length)];
    return next?.id === this.inView ? undefined : next;
  }

  /** To another meeting: with the own leg if it is in one, else to look at it. The one before goes on. */
  async switchTo(meeting: string): Promise<void> {
    if (this.keeper.phase.get().kind === "out") return this.view(meeting);
    if (meeting !== this.inView) await this.goIn(meeting);
  }

  async goIn(meeting: string): Promise<void> {
    if (this.inView !== meeting) {
      // What this screen shows is of the meeting that it leaves.
      if (this.shared.get()) await this.stopSharing();
      this.view(meeting);
    }
    this.ports.world.keep(this.keptIn, meeting, "tab");
    const own = await Promise.race([this.acquire(), sleep(this.ports.world, CAMERA_WAIT_MS).then(() => undefined)]);
    if (this.inView !== meeting) return;
    this.keeper.join(meeting, this.own(own), this.wallSlots);
    if (own) return;
    const late = await this.acquire();
    if (late.stream && this.ports.world.kept(this.keptIn, "tab") === meeting) this.keeper.renew(this.own(late), this.wallSlots);
  }

  /** Leaves with the own leg; the meeting goes on. */
  goOut(ended = false): void {
    this.keeper.leave(ended);
    this.out();
  }

  end(): Promise<void> {
    const meeting = this.inView;
    return this.command(() => this.ports.api.meeting.endMeeting({ meeting }));
  }

  /** No sites: all that are not on air. */
  callAgain(sites: readonly string[] = []): Promise<void> {
    const meeting = this.inView;
    return this.command(() => this.ports.api.meeting.callUnconnected({ meeting, sites: [...sites] }));
  }

  mute(sites: readonly string[], muted: boolean): Promise<void> {
    const meeting = this.inView;
    return this.command(() => this.ports.api.meeting.muteSites({ meeting, sites: [...sites], muted }));
  }

  toggleMute(site: string): Promise<void> {
    const muted = this.meeting.get()?.stage?.mutedSites.includes(site) ?? false;
    return this.mute([site], !muted);
  }

  /** The large picture for all; the same site again takes it back. */
  broadcast(site: string): Promise<void> {
    const meeting = this.inView;
    const now = this.meeting.get()?.stage?.broadcastSite ?? "";
    this.enlarged.set(undefined);
    return this.command(() => this.ports.api.meeting.broadcastSite({ meeting, site: now === site ? "" : site }));
  }

  switchDevice(device: "camera" | "mic"): void {
    const was = this.capture.get();
    const state = was[device];
    if (state === "on" || state === "off") return this.capture.set(switched(was, device, state === "off"));
    // Was refused or missing: ask again, and go in anew if there is something now.
    this.asking = undefined;
    void this.acquire().then((got) => got.stream && this.keeper.renew(this.own(got), this.wallSlots));
  }

  /** The layout of this wall; where the meeting's is forced, of all walls. */
  chooseTiles(tiles: TileCount): void {
    const forced = (this.meeting.get()?.stage?.layout ?? Layout.LAYOUT_UNSPECIFIED) !== Layout.LAYOUT_UNSPECIFIED;
    if (forced && isRunning(this.meeting.get())) return void this.verbs.layout(layoutOf(tiles));
    this.ports.world.keep(KEPT_TILES, String(tiles));
    this.setTiles(tiles);
  }

  /** Forces the layout of this wall on all walls, or lets each be as it likes again. */
  forceLayout(on: boolean): Promise<void> {
    return this.verbs.layout(on ? layoutOf(this.wall.ownTiles()) : Layout.LAYOUT_UNSPECIFIED);
  }

  /** A page on or back: of this wall, or of all where they poll. */
  turn(by: number): void {
    if (this.wall.polling.get()) void this.verbs.turnPage(by);
    else this.wall.turn(by);
  }

  togglePolling(): Promise<void> {
    const polling = this.wall.polling.get();
    // Of a layout that is forced the control plane knows best: it may just have been changed.
    const tiles = this.forced ? 0 : this.wall.ownTiles() || DEFAULT_WALL_SLOTS;
    return polling ? this.verbs.polling(false) : this.verbs.polling(true, POLLING_S, tiles);
  }

  pausePolling(): void {
    const polling = this.wall.polling.get();
    if (polling) void this.verbs.polling(true, polling.intervalS, polling.perPage, !polling.paused);
  }

  /** Shows this screen to the meeting in the place of content, or stops it. */
  async share(): Promise<void> {
    const before = this.shared.get();
    if (before) return this.stopSharing();
    const stream = await (this.ports.screen ?? captureScreen)();
    if (!stream || this.keeper.phase.get().kind !== "in") return release({ ...NO_CAPTURE, stream });
    this.shared.set(stream);
    for (const track of stream.getVideoTracks()) track.addEventListener("ended", () => this.shared.get() === stream && void this.stopSharing());
    this.keeper.renew(this.own(), this.wallSlots);
    await this.verbs.content(this.self);
  }

  private async stopSharing(): Promise<void> {
    release({ ...NO_CAPTURE, stream: this.shared.get() });
    this.shared.set(undefined);
    if (this.keeper.phase.get().kind === "out") return;
    this.keeper.renew(this.own(), this.wallSlots);
    if (this.meeting.get()?.stage?.contentSite === this.self) await this.verbs.content("");
  }

  private own(got: Capture | undefined = this.capture.get()): Own {
    return { stream: got?.stream, content: this.shared.get() };
  }

  /** More pictures than slots need a new leg; fewer do not. */
  private setTiles(tiles: TileCount): void {
    this.wall.setTiles(tiles);
    this.needSlots(tiles);
  }

  private needSlots(count: number): void {
    if (count <= this.wallSlots) return;
    this.wallSlots = Math.min(count, MOST_SLOTS);
    this.wall.setSlots(this.wallSlots);
    this.keeper?.renew(this.own(), this.wallSlots);
  }

  /** The chosen sites that are not in the meeting in view. */
  chosenOutside(): string[] {
    const called = new Set(this.meeting.get()?.summonses.map(({ site }) => site));
    return this.selection.sites().filter((site) => !called.has(site));
  }

  async addChosen(): Promise<void> {
    if (this.chosenOutside().length === 0) return;
    await this.verbs.addSites(this.selection.selector());
    this.selection.clear();
  }

  addSites(sites: readonly string[]): Promise<void> {
    return this.verbs.addSites(create(SelectorSchema, { sites: [...sites] }));
  }

  isChair(): boolean {
    return this.meeting.get()?.chair === this.account.name;
  }

  close(): void {
    if (this.meeting.get()?.endedMs) this.view("");
  }

  // What the control plane says.

  private handle({ event }: WatchResponse): void {
    switch (event.case) {
      case "snapshot":
        return this.snapshot(event.value);
      case "presence":
        return this.roster.setPresence(event.value.presence, false);
      case "meetingEvent":
        return this.meetingEvent(event.value);
      case "quality":
        return this.qualities.change(event.value.sites);
      case "directory":
        return void this.reloadDirectory();
      case "heartbeat":
        return this.clock.sync(Number(event.value.serverTimeMs));
      case "fleet":
        return this.relays.set(event.value.relays);
      case "permissions":
        return this.authority.take(event.value);
      case "service":
        return this.service.set(event.value);
      case "plans":
        return void this.plans.read();
      case "report":
        return this.reports.take(event.value);
      default:
        return;
    }
  }

  private snapshot(snapshot: WatchSnapshot): void {
    this.clock.sync(Number(snapshot.serverTimeMs));
    this.authority.anew();
    void this.plans.read();
    void this.reports.read();
    this.setDirectory(new Directory(snapshot.units, snapshot.sites));
    this.roster.setPresence(snapshot.presence, true);
    this.relays.set(snapshot.fleet?.relays ?? []);
    this.qualities.anew(snapshot.quality);
    if (!snapshot.resumed) this.meetingsAnew(snapshot.meetings);
    this.roster.flush();
    this.publish.mark();
    this.publish.flush();
    if (!this.loaded.get()) this.resume();
    this.loaded.set(true);
  }

  private meetingsAnew(meetings: readonly Meeting[]): void {
    const running = new Set(meetings.map((meeting) => meeting.id));
    for (const meeting of this.known.values()) {
      // It ended while nobody told us.
      if (!running.has(meeting.id) && !meeting.endedMs) {
        this.known.set(meeting.id, { ...meeting, endedMs: BigInt(this.clock.serverNow()) });
      }
    }
    for (const meeting of meetings) this.learn(meeting);
  }

  private learn(meeting: Meeting): void {
    this.known.set(meeting.id, meeting);
    if (!this.logs.has(meeting.id)) this.logs.set(meeting.id, Log.from(meeting));
  }

  private meetingEvent(event: MeetingEvent): void {
    const before = this.known.get(event.meeting);
    const after = apply(before, event);
    if (!after || after === before) return;
    this.known.set(after.id, after);
    let log = this.logs.get(after.id);
    if (!log) {
      log = new Log();
      this.logs.set(after.id, log);
    }
    log.event(before, event);
    if (event.event.case === "chair" && isUnsure(after)) void this.readChair(after.id);
    if (after.endedMs && this.keeper.phase.get().kind !== "out" && after.id === this.inView) this.goOut(true);
    this.publish.mark();
  }

  /** Reads from whom the chair was taken, where the snapshot did not say it. */
  private async readChair(id: string): Promise<void> {
    const { world, api } = this.ports;
    for (;;) {
      const answer = await outcome(api.meeting.listMeetings({}, { timeoutMs: 10_000 }));
      const known = this.known.get(id);
      if (this.stopped.signal.aborted || !known || known.endedMs || !isUnsure(known)) return;
      const read = answer.kind === "ok" ? answer.value.meetings.find((meeting) => meeting.id === id) : undefined;
      const sure = read && withTaken(known, read);
      if (sure) {
        this.known.set(id, sure);
        return this.publish.mark();
      }
      await sleep(world, READ_AGAIN_MS, this.stopped.signal);
    }
  }

  /** After a reload: back into the meeting that this desk was in, or a look at the one that it convened. */
  private resume(): void {
    const was = this.ports.world.kept(this.keptIn, "tab");
    const running = this.meetings.get();
    const mine = running.find((meeting) => meeting.id === was) ?? running.find((meeting) => meeting.chair === this.account.name);
    if (!mine) return;
    this.view(mine.id);
    if (mine.id === was) void this.goIn(mine.id);
  }

  private show(): void {
    const running = [...this.known.values()].filter((meeting) => !meeting.endedMs);
    this.meetings.set(running);
    const meeting = this.known.get(this.inView);
    this.qualities.view(meeting && !meeting.endedMs ? meeting.id : "");
    const changed = meeting?.id !== this.meeting.get()?.id;
    this.authority.view(isRunning(meeting) ? meeting.id : "");
    this.meeting.set(meeting);
    this.showStage(isRunning(meeting) ? meeting : undefined);
    this.log.set(this.logs.get(this.inView)?.lines ?? []);
    if (changed || meeting?.endedMs) this.roster.setAllSummonses(meeting?.endedMs ? [] : (meeting?.summonses ?? []));
    else for (const summons of meeting?.summonses ?? []) if (this.roster.summons.get(summons.site) !== summons) this.roster.setSummons(summons);
    this.wall.setSites(this.roster.directory.get().sort(meeting?.summonses.map((summons) => summons.site) ?? []));
    for (const [id, old] of this.known) {
      if (!old.endedMs || id === this.inView) continue;
      this.known.delete(id);
      this.logs.delete(id);
      this.qualities.forget(id);
      this.authority.forget(id);
    }
  }

  private keptTiles(): TileCount {
    const kept = Number(this.ports.world.kept(KEPT_TILES) ?? DEFAULT_WALL_SLOTS);
    return TILE_COUNTS.find((tiles) => tiles === kept) ?? DEFAULT_WALL_SLOTS;
  }

  /** What everyone is made to see holds here too: the layout, and the page that is polled. */
  private showStage(meeting: Meeting | undefined): void {
    const layout = meeting?.stage?.layout ?? Layout.LAYOUT_UNSPECIFIED;
    if (layout !== this.forced) {
      this.forced = layout;
      this.setTiles(tilesOf(layout) ?? this.keptTiles());
    }
    const polling = meeting?.stage?.polling;
    if (polling) this.needSlots(Math.min(2 * (polling.perPage || polling.sites.length), MOST_SLOTS));
    this.wall.setPolling(polling);
  }

  private async reloadDirectory(): Promise<void> {
    const answer = await outcome(this.ports.api.directory.listSites({}));
    if (answer.kind !== "ok") return;
    this.setDirectory(new Directory(answer.value.units, answer.value.sites));
    this.roster.setPresence(answer.value.presence, true);
  }

  private setDirectory(directory: Directory): void {
    this.roster.setDirectory(directory);
    this.selection.setDirectory(directory);
  }

  private async ticket(meeting: string, lost?: Lost) {
    const request = { meeting, lostRelay: lost?.relay ?? "", lostEpoch: lost?.epoch ?? 0n };
    const answer = await outcome(this.ports.api.meeting.joinAsDesk(request, { timeoutMs: 5_000 }));
    if (answer.kind !== "ok") return answer;
    const { ticket } = answer.value;
    return ticket
      ? { kind: "ok" as const, value: ticket }
      : { kind: "unreachable" as const, code: "", message: "the answer carries no ticket" };
  }

  private acquire(): Promise<Capture> {
    if (this.asking) return this.asking;
    this.capture.set({ ...NO_CAPTURE, camera: "asking", mic: "asking" });
    this.asking = (this.ports.devices ?? capture)().then((got) => {
      this.capture.set(got);
      return got;
    });
    return this.asking;
  }

  private out(): void {
    this.ports.world.keep(this.keptIn, null, "tab");
    release(this.capture.get());
    release({ ...NO_CAPTURE, stream: this.shared.get() });
    this.shared.set(undefined);
    this.asking = undefined;
    this.capture.set(NO_CAPTURE);
  }

  private act(request: ActRequest): Promise<void> {
    return this.command(() => this.ports.api.meeting.act(request, { timeoutMs: 10_000 }));
  }

  /** Sends a command; while the control plane is away it waits, for as long as the page lives. */
  private async command(send: () => Promise<unknown>): Promise<void> {
    this.refusal.set(undefined);
    let answer = await outcome(send());
    if (answer.kind === "unreachable") {
      this.waiting.update((count) => count + 1);
      while (answer.kind === "unreachable" && !this.stopped.signal.aborted) {
        await sleep(this.ports.world, 1_000, this.stopped.signal);
        if (this.watch.connection.get().kind === "live") answer = await outcome(send());
      }
      this.waiting.update((count) => count - 1);
    }
    if (answer.kind !== "ok" && answer.kind !== "unreachable") this.refusal.set(answer);
  }
}

// The dispatcher's desk: joins the Watch stream, the roster, the choice, the meeting in view, the wall and the own leg,
// and carries out commands. Invariant: what is shown comes from the Watch stream, never from the answer of a command,
// so that two desks always agree. A command given while the control plane is away waits and is sent when it is back.

import { create } from "@bufbuild/protobuf";
import type { PreviewConveneResponse, RelayState, WatchResponse, WatchSnapshot } from "../gen/muster/command/v1/command_pb";
import { ConveneRequestSchema } from "../gen/muster/command/v1/command_pb";
import { type Account, type Meeting, type MeetingEvent, type Selector } from "../gen/muster/command/v1/types_pb";
import { outcome, type Api, type Failure, type Outcome } from "./api";
import { Batch, Cell } from "./cell";
import { Clock } from "./clock";
import { Directory } from "./directory";
import { Log, type LogLine } from "./log";
import { apply } from "./meeting";
import { capture, NO_CAPTURE, release, switched, type Capture } from "./media/devices";
import { Keeper, type KeeperPorts } from "./media/keeper";
import { sleep, type World } from "./ports";
import { Qualities } from "./quality";
import { Roster } from "./roster";
import { Selection } from "./selection";
import { Wall, type TileCount } from "./wall";
import { Watch } from "./watch";

/** How long joining waits for the camera before it goes in without and adds it later. */
const CAMERA_WAIT_MS = 1_500;
export const DEFAULT_WALL_SLOTS = 16;
const PUBLISH_MS = 50;

export interface DeskPorts {
  world: World;
  api: Api;
  openLeg: KeeperPorts["openLeg"];
  relay: KeeperPorts["relay"];
  devices?: () => Promise<Capture>;
}

export class Desk {
  readonly clock: Clock;
  readonly roster: Roster;
  readonly selection = new Selection();
  readonly wall = new Wall();
  readonly watch: Watch;
  readonly keeper: Keeper;
  readonly qualities = new Qualities();
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
  /** Where a reload finds the meeting that this account was in. */
  private readonly keptIn: string;
  private readonly known = new Map<string, Meeting>();
  private readonly logs = new Map<string, Log>();
  private inView = "";
  private wallSlots = DEFAULT_WALL_SLOTS;
  private asking: Promise<Capture> | undefined;
  private readonly publish: Batch;
  private readonly stopped = new AbortController();

  constructor(
    private readonly ports: DeskPorts,
    readonly account: Account,
  ) {
    const { world, api } = ports;
    const schedule = (run: () => void): void => void world.after(PUBLISH_MS, run);
    this.self = `desk:${account.name}`;
    this.keptIn = `muster.desk.in.${account.name}`;
    this.clock = new Clock(world);
    this.roster = new Roster(schedule);
    this.publish = new Batch(() => this.show(), schedule);
    this.watch = new Watch(api.watch, world, (response) => this.handle(response));
    this.keeper = new Keeper({
      world,
      openLeg: ports.openLeg,
      relay: ports.relay,
      ticket: (meeting) => this.ticket(meeting),
      yields: true,
    });
    this.keeper.phase.subscribe((phase) => {
      if (phase.kind === "ended" || phase.kind === "elsewhere" || phase.kind === "refused") this.out();
    });
  }

  start(): void {
    void this.watch.run();
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

  async convene(selector: Selector, title: string, key: string): Promise<Failure | undefined> {
    const request = create(ConveneRequestSchema, { selector, title, idempotencyKey: key });
    const answer = await outcome(this.ports.api.meeting.convene(request, { timeoutMs: 15_000 }));
    if (answer.kind !== "ok") return answer;
    const meeting = answer.value.meeting;
    if (!meeting) return { kind: "unreachable", code: "", message: "the answer names no meeting" };
    // The stream may already be ahead of the answer.
    if ((this.known.get(meeting.id)?.seq ?? 0n) < meeting.seq) this.learn(meeting);
    this.view(meeting.id);
    await this.goIn(meeting.id);
    return undefined;
  }

  /** Looks at a meeting without going in. */
  view(meeting: string): void {
    this.inView = meeting;
    this.enlarged.set(undefined);
    this.publish.mark();
    this.publish.flush();
  }

  async goIn(meeting: string): Promise<void> {
    if (this.inView !== meeting) this.view(meeting);
    this.ports.world.keep(this.keptIn, meeting, "tab");
    const own = await Promise.race([this.acquire(), sleep(this.ports.world, CAMERA_WAIT_MS).then(() => undefined)]);
    if (this.inView !== meeting) return;
    this.keeper.join(meeting, own?.stream, this.wallSlots);
    if (own) return;
    const late = await this.acquire();
    if (late.stream && this.ports.world.kept(this.keptIn, "tab") === meeting) this.keeper.renew(late.stream, this.wallSlots);
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
    void this.acquire().then(({ stream }) => stream && this.keeper.renew(stream, this.wallSlots));
  }

  /** More tiles than slots need a new leg; fewer do not. */
  setTiles(tiles: TileCount): void {
    this.wall.setTiles(tiles);
    if (tiles <= this.wallSlots) return;
    this.wallSlots = tiles;
    this.keeper.renew(this.capture.get().stream, tiles);
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
      default:
        return;
    }
  }

  private snapshot(snapshot: WatchSnapshot): void {
    this.clock.sync(Number(snapshot.serverTimeMs));
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
    if (after.endedMs && this.keeper.phase.get().kind !== "out" && after.id === this.inView) this.goOut(true);
    this.publish.mark();
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
    this.meeting.set(meeting);
    this.log.set(this.logs.get(this.inView)?.lines ?? []);
    if (changed || meeting?.endedMs) this.roster.setAllSummonses(meeting?.endedMs ? [] : (meeting?.summonses ?? []));
    else for (const summons of meeting?.summonses ?? []) if (this.roster.summons.get(summons.site) !== summons) this.roster.setSummons(summons);
    this.wall.setSites(this.roster.directory.get().sort(meeting?.summonses.map((summons) => summons.site) ?? []));
    for (const [id, old] of this.known) {
      if (!old.endedMs || id === this.inView) continue;
      this.known.delete(id);
      this.logs.delete(id);
      this.qualities.forget(id);
    }
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

  private async ticket(meeting: string) {
    const answer = await outcome(this.ports.api.meeting.joinAsDesk({ meeting }, { timeoutMs: 5_000 }));
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
    this.asking = undefined;
    this.capture.set(NO_CAPTURE);
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

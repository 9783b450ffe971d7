// The Watch stream of a tab: opens it, keeps the cursor, opens it again after a loss, and says how the connection is.
// Invariant: every event of a stream is handed on once and in order; a gap makes it start over with a snapshot. A
// stream that is silent for longer than two heartbeats and a margin counts as lost, and opens again within 2 s. It does not interpret events.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type Client } from "@connectrpc/connect";
import {
  PositionSchema,
  WatchRequestSchema,
  type WatchResponse,
  type WatchService,
} from "../gen/muster/command/v1/command_pb";
import { Backoff } from "./backoff";
import { Cell } from "./cell";
import { sleep, type World } from "./ports";

/** The server beats every second: after so long without a word it is gone. */
export const HEARTBEAT_TIMEOUT_MS = 2_500;

/** The first word of a stream may be a long one, on a slow network. */
export const OPENING_TIMEOUT_MS = 8_000;

/** A stream that lived so long was well. */
const WELL_MS = 5_000;

export type Connection =
  | { kind: "connecting" }
  | { kind: "live" }
  | { kind: "lost"; sinceMs: number; message: string }
  | { kind: "signed_out" };

export class Watch {
  readonly connection = new Cell<Connection>({ kind: "connecting" });
  private readonly positions = new Map<string, bigint>();
  private readonly backoff: Backoff;
  private stopped = new AbortController();

  constructor(
    private readonly client: Client<typeof WatchService>,
    private readonly world: World,
    private readonly handle: (response: WatchResponse) => void,
  ) {
    this.backoff = new Backoff(500, 2_000, () => world.random());
  }

  /** Runs until `stop`, or until the session is refused. */
  async run(): Promise<void> {
    const { signal } = this.stopped;
    while (!signal.aborted) {
      const from = this.world.now();
      const error = await this.once(signal);
      if (signal.aborted) return;
      if (error?.code === Code.Unauthenticated) return this.connection.set({ kind: "signed_out" });
      this.noteLoss(error?.rawMessage ?? "stream closed");
      // A replica that served this tab well has died: the next one is tried at once.
      const wasWell = this.world.now() - from >= WELL_MS;
      if (!wasWell) await sleep(this.world, this.backoff.next(), signal);
    }
  }

  stop(): void {
    this.stopped.abort();
  }

  private noteLoss(message: string): void {
    this.connection.update((was) =>
      was.kind === "lost" ? was : { kind: "lost", sinceMs: this.world.now(), message },
    );
  }

  private async once(stop: AbortSignal): Promise<ConnectError | undefined> {
    const attempt = new AbortController();
    const abort = (): void => attempt.abort();
    stop.addEventListener("abort", abort, { once: true });
    let cancel = this.world.after(OPENING_TIMEOUT_MS, abort);
    const cursor = [...this.positions].map(([stream, seq]) => create(PositionSchema, { stream, seq }));
    try {
      const request = create(WatchRequestSchema, { cursor });
      for await (const response of this.client.watch(request, { signal: attempt.signal })) {
        cancel();
        cancel = this.world.after(HEARTBEAT_TIMEOUT_MS, abort);
        this.backoff.reset();
        this.connection.set({ kind: "live" });
        if (!this.take(response)) return undefined;
      }
      return undefined;
    } catch (error) {
      return ConnectError.from(error);
    } finally {
      cancel();
      stop.removeEventListener("abort", abort);
      attempt.abort();
    }
  }

  /** False if the stream must be opened anew, from a snapshot. */
  private take(response: WatchResponse): boolean {
    const { event } = response;
    if (event.case === "snapshot" && !event.value.resumed) {
      this.positions.clear();
      for (const meeting of event.value.meetings) this.positions.set(meeting.id, meeting.seq);
    }
    if (event.case === "meetingEvent") {
      const { meeting, seq } = event.value;
      const last = this.positions.get(meeting) ?? 0n;
      if (seq <= last) return true;
      if (seq > last + 1n) {
        this.positions.clear();
        return false;
      }
      this.positions.set(meeting, seq);
      if (event.value.event.case === "ended") this.forgetLater(meeting);
    }
    this.handle(response);
    return true;
  }

  /** Ended meetings leave the cursor after the newest 32, so that it stays small over a long night. */
  private readonly ended: string[] = [];
  private forgetLater(meeting: string): void {
    this.ended.push(meeting);
    if (this.ended.length > 32) this.positions.delete(this.ended.shift()!);
  }
}

// What the front line reports (上报), newest first. Read when the desk starts and whenever the Watch stream begins anew; in
// between it tells each new one. Which are new to the reader is this browser's to know: those received after the list was
// last looked at. What is held is bounded; older ones are read a page at a time.

import type { Report } from "../gen/muster/command/v1/types_pb";
import { outcome, type Api, type Failure } from "./api";
import { Cell } from "./cell";
import type { World } from "./ports";

const ANSWER_MS = 10_000;
const PAGE = 50;
/** Held at most; beyond it the oldest go, and can be read again. */
export const MOST_REPORTS = 1_000;
/** A report whose telling was lost on the way between replicas is found after so long. */
export const REPORTS_AGAIN_MS = 60_000;

export const reportKey = ({ site, id }: Pick<Report, "site" | "id">): string => `${site}/${id}`;

export class Reports {
  readonly list = new Cell<readonly Report[]>([]);
  /** Received since the list was last looked at. */
  readonly unread = new Cell(0);
  /** There are older ones than those held. */
  readonly more = new Cell(false);
  readonly failure = new Cell<Failure | undefined>(undefined);
  private page = "";
  private seenMs: bigint;

  constructor(
    private readonly api: Api,
    private readonly world: World,
    /** Where this browser keeps what was seen. */
    private readonly keptIn: string,
  ) {
    this.seenMs = BigInt(world.kept(keptIn) ?? 0);
  }

  /** Reads the newest page again, and puts it before what is held. */
  async read(): Promise<void> {
    const answer = await outcome(this.api.report.listReports({ limit: PAGE }, { timeoutMs: ANSWER_MS }));
    if (answer.kind !== "ok") return;
    const { reports, nextPage } = answer.value;
    const oldest = reports[reports.length - 1];
    const held = this.list.get();
    // With a gap in between what was held is let go: the pages lead there.
    const joins = held.length === 0 || !nextPage || reports.some((report) => reportKey(report) === reportKey(held[0]!));
    if (!joins || held.length === 0) this.page = nextPage;
    this.put(joins ? [...reports, ...held] : reports);
    this.more.set(this.page !== "" && oldest !== undefined);
  }

  /** One that the Watch stream tells. */
  take(report: Report): void {
    this.put([report, ...this.list.get()]);
  }

  /** The next older page. */
  async older(): Promise<void> {
    const answer = await outcome(this.api.report.listReports({ limit: PAGE, page: this.page }, { timeoutMs: ANSWER_MS }));
    this.failure.set(answer.kind === "ok" ? undefined : answer);
    if (answer.kind !== "ok") return;
    this.page = answer.value.nextPage;
    this.put([...this.list.get(), ...answer.value.reports]);
    this.more.set(this.page !== "");
  }

  isNew({ receivedMs }: Report, sinceMs = this.seenMs): boolean {
    return receivedMs > sinceMs;
  }

  /** The reader looks at the list: until when it had been read before. */
  look(): bigint {
    const before = this.seenMs;
    const newest = this.list.get()[0]?.receivedMs ?? before;
    if (newest > before) {
      this.seenMs = newest;
      this.world.keep(this.keptIn, newest.toString());
      this.count();
    }
    return before;
  }

  private put(reports: readonly Report[]): void {
    const known = new Map(reports.map((report) => [reportKey(report), report]));
    const order = [...known.values()].sort((a, b) => Number(b.receivedMs - a.receivedMs) || (reportKey(a) < reportKey(b) ? 1 : -1));
    this.list.set(order.slice(0, MOST_REPORTS));
    this.count();
  }

  private count(): void {
    this.unread.set(this.list.get().filter((report) => this.isNew(report)).length);
  }
}

// What the front line reports, as the desk holds it: newest first, each once, and which are new to the reader.

import { create } from "@bufbuild/protobuf";
import { createRouterTransport } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { ReportService } from "../src/gen/muster/command/v1/command_pb";
import { ReportSchema, type Report } from "../src/gen/muster/command/v1/types_pb";
import { createApi } from "../src/model/api";
import { MOST_REPORTS, Reports } from "../src/model/reports";
import { TestWorld } from "./world";

const report = (at: number, site = "A1"): Report => create(ReportSchema, { site, id: `r${at}`, text: `${at}`, receivedMs: BigInt(at) });

class Server {
  /** Newest first. */
  stored: Report[] = [];
  readonly api = createApi(
    createRouterTransport(({ service }) => {
      service(ReportService, {
        listReports: ({ limit, page }) => {
          const rest = this.stored.filter(({ receivedMs }) => !page || receivedMs < BigInt(page));
          const reports = rest.slice(0, limit);
          return { reports, nextPage: rest.length > limit ? reports[reports.length - 1]!.receivedMs.toString() : "" };
        },
      });
    }),
  );
  add(from: number, to: number): void {
    for (let at = from; at <= to; at++) this.stored.unshift(report(at));
  }
}

const times = (reports: Reports): number[] => reports.list.get().map(({ receivedMs }) => Number(receivedMs));
const down = (from: number, to: number): number[] => Array.from({ length: from - to + 1 }, (_, at) => from - at);

describe("reports", () => {
  it("are new until they were looked at, also after a reload", async () => {
    const [server, world] = [new Server(), new TestWorld()];
    server.add(1, 3);
    const reports = new Reports(server.api, world, "seen");
    await reports.read();
    expect([times(reports), reports.unread.get(), reports.more.get()]).toEqual([[3, 2, 1], 3, false]);
    expect(reports.look()).toBe(0n);
    expect(reports.unread.get()).toBe(0);
    reports.take(report(4));
    reports.take(report(4));
    expect([times(reports), reports.unread.get()]).toEqual([[4, 3, 2, 1], 1]);
    const again = new Reports(server.api, world, "seen");
    await again.read();
    expect(again.unread.get()).toBe(0);
  });

  it("are read back page by page without a hole, and anew where too many came while nobody listened", async () => {
    const server = new Server();
    server.add(1, 120);
    const reports = new Reports(server.api, new TestWorld(), "seen");
    await reports.read();
    expect([times(reports), reports.more.get()]).toEqual([down(120, 71), true]);
    await reports.older();
    await reports.older();
    expect([times(reports), reports.more.get()]).toEqual([down(120, 1), false]);
    server.add(121, 130);
    await reports.read();
    expect(times(reports)).toEqual(down(130, 1));
    server.add(131, 230);
    await reports.read();
    expect([times(reports), reports.more.get()]).toEqual([down(230, 181), true]);
    await reports.older();
    expect(times(reports)).toEqual(down(230, 131));
  });

  it("are held up to a bound", async () => {
    const reports = new Reports(new Server().api, new TestWorld(), "seen");
    for (let at = 1; at <= MOST_REPORTS + 5; at++) reports.take(report(at));
    expect(reports.list.get()).toHaveLength(MOST_REPORTS);
    expect(times(reports)[0]).toBe(MOST_REPORTS + 5);
  });
});

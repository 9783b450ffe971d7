import { create, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { LogService, ReadLogResponseSchema, SecretMadeSchema, UnitEventSchema, VerifyLogResponseSchema } from "../src/gen/muster/command/v1/command_pb";
import { FloorRequestSchema, FloorState, MeetingEventSchema, MeetingSchema, PollingSchema, StageSchema, SummonsReason, SummonsSchema, SummonsState, type MeetingEvent } from "../src/gen/muster/command/v1/types_pb";
import { loadWords, translate, type Say } from "../src/i18n";
import { createApi } from "../src/model/api";
import { describe as describeEvent, hex, inOrder, pageOf, readLog, verifyLog } from "../src/model/history";

await Promise.all([loadWords("en", true), loadWords("zh", true)]);
const $ = "muster.command.v1.";
const en: Say = (key, values) => translate("en", key, values);
const zh: Say = (key, values) => translate("zh", key, values);
const name = (site: string): string => `site ${site}`;
const told = (event: MeetingEvent["event"], say = en): string => describeEvent({ stream: "meeting", event: create(MeetingEventSchema, { event }) }, { say, name });

function logs(count: number, broken = 0n) {
  let sent = 0;
  const transport = createRouterTransport((router) => {
    router.service(LogService, {
      async *readLog({ stream, after }) {
        if (stream === "secret") throw new ConnectError("not yours", Code.PermissionDenied, { "muster-code": "no_role" });
        for (let seq = after + 1n; seq <= BigInt(count); seq += 1n) {
          sent += 1;
          const payload = stream.startsWith("unit:")
            ? toBinary(UnitEventSchema, create(UnitEventSchema, { seq, event: { case: "secretMade", value: create(SecretMadeSchema, { identity: "site_link:S1" }) } }))
            : toBinary(MeetingEventSchema, create(MeetingEventSchema, { seq, actor: "duty", cause: "lock", event: { case: "lock", value: { $typeName: `${$}LockChanged`, locked: true, desks: [] } } }));
          yield create(ReadLogResponseSchema, { seq, payload });
        }
      },
      async *verifyLog({ stream }) {
        yield create(VerifyLogResponseSchema, { stream, events: BigInt(count), brokenAt: broken, found: broken ? "altered" : "", head: new Uint8Array([0, 171, 255]) });
      },
    });
  });
  return { api: createApi(transport).log, sent: () => sent };
}

describe("the log of a meeting", () => {
  it("is read a page at a time, and no more than the page", async () => {
    const { api, sent } = logs(1_000);
    const first = await readLog(api, "m", 0n, 100);
    if (first.kind !== "ok") throw new Error(first.kind);
    expect([first.value.events.length, first.value.events[99]!.event.seq, first.value.more]).toEqual([100, 100n, true]);
    expect(sent()).toBeLessThan(200);
    const last = await readLog(api, "m", 950n, 100);
    expect(last).toMatchObject({ kind: "ok", value: { more: false } });
    expect(last.kind === "ok" && last.value.events.map(({ event }) => event.seq)[0]).toBe(951n);
    const whole = await readLog(api, "m", 900n, 100);
    expect(whole).toMatchObject({ kind: "ok", value: { more: false } });
  });

  it("says why it may not be read", async () => {
    expect(await readLog(logs(1).api, "secret", 0n, 100)).toMatchObject({ kind: "denied", code: "no_role" });
  });

  it("of a unit is decoded as what it is, and names what was given out", async () => {
    const page = await readLog(logs(1).api, "unit:WH", 0n, 100);
    if (page.kind !== "ok") throw new Error(page.kind);
    expect(describeEvent(page.value.events[0]!, { say: en, name })).toBe("token or link given out: site_link:S1");
  });

  it("is whole or broken as the control plane says", async () => {
    expect(await verifyLog(logs(7).api, "m")).toMatchObject({ kind: "ok", value: [{ events: 7n, brokenAt: 0n }] });
    expect(await verifyLog(logs(7, 3n).api, "m")).toMatchObject({ kind: "ok", value: [{ brokenAt: 3n, found: "altered" }] });
    expect(hex(new Uint8Array([0, 171, 255]))).toBe("00abff");
  });

  it("tells events in words, in both languages", () => {
    const summons = create(SummonsSchema, { site: "a", state: SummonsState.UNREACHABLE, reason: SummonsReason.OFFLINE });
    const lost: MeetingEvent["event"] = { case: "summons", value: { $typeName: `${$}SummonsChanged`, summons } };
    expect(told(lost)).toMatch(/^site a: .+, endpoint offline$/);
    expect(told(lost, zh)).toMatch(/^site a：.+终端离线$/);
    const stage = create(StageSchema, { broadcastSite: "a", mutedSites: ["b", "c", "d", "e"], polling: create(PollingSchema, { intervalS: 10, page: 1, pages: 3 }) });
    expect(told({ case: "stage", value: { $typeName: `${$}StageChanged`, stage } })).toBe("picture and sound: large picture: site a; polling every 10 s, page 2 of 3; muted: 4 sites");
    expect(told({ case: "stage", value: { $typeName: `${$}StageChanged`, stage: create(StageSchema) } })).toContain("nobody muted");
    expect(told({ case: "chair", value: { $typeName: `${$}ChairChanged`, chair: "top", before: "duty", cause: 3 } })).toBe("chair: duty → top (taken over)");
    expect(told({ case: "floor", value: { $typeName: `${$}FloorChanged`, floor: [] } })).toBe("floor: nobody");
    expect(told({ case: "floor", value: { $typeName: `${$}FloorChanged`, floor: [create(FloorRequestSchema, { site: "a", state: FloorState.GRANTED })] } })).toBe("floor: site a (has the floor)");
    expect(told({ case: undefined })).not.toBe("");
  });
});

describe("the list of meetings", () => {
  it("has the running ones first, then the newest, a page at a time", () => {
    const of = (id: string, startedMs: bigint, endedMs = 0n) => create(MeetingSchema, { id, startedMs, endedMs });
    expect(inOrder([of("old", 1n, 2n), of("runs", 3n), of("new", 9n, 10n)]).map(({ id }) => id)).toEqual(["runs", "new", "old"]);
    const all = Array.from({ length: 25 }, (_, at) => at);
    expect(pageOf(all, 2, 12)).toEqual({ items: [24], at: 2, pages: 3 });
    expect(pageOf(all, 9, 12).at).toBe(2);
    expect(pageOf([], 0, 12)).toEqual({ items: [], at: 0, pages: 1 });
  });
});

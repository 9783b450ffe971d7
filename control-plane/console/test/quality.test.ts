import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { SiteQualitySchema } from "../src/gen/muster/command/v1/types_pb";
import { LegQualitySchema, QualityMark, QualityReason, Rung, SlotReason, SlotStateSchema, SlotStatus } from "../src/gen/muster/media/v1/media_pb";
import { loadWords, translate, type Key, type Values } from "../src/i18n";
import { isOld, Qualities, verdict } from "../src/model/quality";
import { headline, limit, numbers } from "../src/views/qualityWords";

await Promise.all([loadWords("en", true), loadWords("zh", true)]);

const en = (key: Key, values?: Values): string => translate("en", key, values);
const zh = (key: Key, values?: Values): string => translate("zh", key, values);
const leg = (mark: QualityMark, more: MessageInitShape<typeof LegQualitySchema> = {}) => create(LegQualitySchema, { mark, ...more });
const told = (meeting: string, site: string, mark?: QualityMark) =>
  create(SiteQualitySchema, { meeting, site, leg: `${site}-1`, ...(mark === undefined ? {} : { quality: leg(mark) }) });
const GOOD_HERE = { bars: 3, reason: "good" } as const;
const NOTHING_HERE = { bars: 0, reason: "none" } as const;

describe("how sites fare", () => {
  it("shows the meeting in view, and knows the others for when they come into view", () => {
    const qualities = new Qualities();
    qualities.view("m1");
    qualities.anew([told("m1", "a", QualityMark.GOOD), told("m2", "b", QualityMark.POOR)]);
    expect([qualities.of("a").get()?.mark, qualities.of("b").get()]).toEqual([QualityMark.GOOD, undefined]);
    expect(qualities.poor.get()).toEqual([]);
    qualities.view("m2");
    expect([qualities.of("a").get(), qualities.of("b").get()?.mark]).toEqual([undefined, QualityMark.POOR]);
    expect(qualities.poor.get()).toEqual(["b"]);
  });

  it("forgets a leg that is gone, a meeting that is over, and what a new snapshot does not name", () => {
    const qualities = new Qualities();
    qualities.view("m1");
    qualities.anew([told("m1", "a", QualityMark.POOR), told("m1", "b", QualityMark.FAIR)]);
    qualities.change([told("m1", "a")]);
    expect([qualities.of("a").get(), qualities.poor.get()]).toEqual([undefined, []]);
    qualities.anew([told("m1", "c", QualityMark.FAIR)]);
    expect([qualities.of("b").get(), qualities.of("c").get()?.mark]).toEqual([undefined, QualityMark.FAIR]);
    qualities.forget("m1");
    expect(qualities.of("c").get()).toBeUndefined();
  });

  it("does not touch those who look at a site of which nothing has changed", () => {
    const qualities = new Qualities();
    qualities.view("m1");
    let seen = 0;
    qualities.of("a").subscribe(() => (seen += 1));
    qualities.change([told("m1", "b", QualityMark.POOR), told("m2", "a", QualityMark.POOR)]);
    expect(seen).toBe(1);
    qualities.change([told("m1", "a", QualityMark.FAIR)]);
    expect(seen).toBe(2);
  });
});

describe("the mark of a picture", () => {
  it.each([
    ["nothing known", undefined, NOTHING_HERE, { bars: 0, of: "nobody" }],
    ["not on air yet", leg(QualityMark.UNSPECIFIED), NOTHING_HERE, { bars: 0, of: "nobody" }],
    ["all well", leg(QualityMark.GOOD), GOOD_HERE, { bars: 3, of: "site", reason: 0, rung: Rung.UNSPECIFIED }],
    ["the site loses", leg(QualityMark.POOR, { reason: QualityReason.LOSS_UP }), GOOD_HERE, { bars: 1, of: "site", reason: QualityReason.LOSS_UP, rung: Rung.UNSPECIFIED }],
    ["it freezes here", leg(QualityMark.GOOD), { bars: 1, reason: "freezing" }, { bars: 1, of: "here", reason: "freezing" }],
    ["both are bad: the site's is told", leg(QualityMark.POOR, { reason: QualityReason.DELAY }), { bars: 1, reason: "heavy_loss" }, { bars: 1, of: "site", reason: QualityReason.DELAY, rung: Rung.UNSPECIFIED }],
    ["only this browser knows", undefined, { bars: 2, reason: "loss" }, { bars: 2, of: "here", reason: "loss" }],
  ] as const)("%s", (_what, site, here, expected) => {
    expect(verdict(site, here)).toEqual(expected);
  });

  it("is said with its reason in both languages", () => {
    const poor = verdict(leg(QualityMark.POOR, { reason: QualityReason.LOSS_UP }), GOOD_HERE);
    expect(headline(poor, en)).toBe("Poor: packets from the site are lost");
    expect(headline(poor, zh)).toBe("差：会场上行丢包");
    expect(headline(verdict(leg(QualityMark.GOOD), GOOD_HERE), en)).toBe("Good");
    const stills = leg(QualityMark.POOR, { reason: QualityReason.NO_MEDIA, rung: Rung.STILLS });
    expect(headline(verdict(stills, GOOD_HERE), en)).toBe("Poor: the site's link is narrow: a still every two seconds, and sound");
    expect(numbers(stills, zh)[0]).toBe("会场带宽不足：每两秒一张静止画面，声音照常");
    expect(numbers(stills, en, headline(verdict(stills, GOOD_HERE), en))[0], "not said twice").toMatch(/^from the site/);
    expect(limit(create(SlotStateSchema), zh, stills)).toBe("线路慢：每两秒一张静止画面");
  });

  it("takes stills for what they are until some are missing", () => {
    const slot = (status: SlotStatus, ageMs: number) => create(SlotStateSchema, { status, ageMs });
    const [stills, sound] = [Rung.STILLS, Rung.AUDIO].map((rung) => leg(QualityMark.POOR, { rung }));
    expect(isOld(slot(SlotStatus.STALE, 2_000), stills)).toBe(false);
    expect(isOld(slot(SlotStatus.STALE, 6_000), stills)).toBe(true);
    expect(isOld(slot(SlotStatus.STALE, 2_000), sound)).toBe(true);
    expect(isOld(slot(SlotStatus.STALE, 2_000), undefined)).toBe(true);
    expect(isOld(slot(SlotStatus.LIVE, 0), sound)).toBe(false);
  });

  it("tells the numbers behind it", () => {
    const quality = leg(QualityMark.GOOD, { upBps: 1_940_000, upLossPermille: 2, downBps: 420_000, rttMs: 45, jitterMs: 3, published: { width: 1280, height: 720 } });
    expect(numbers(quality, en)).toEqual(["from the site: 1.9 Mb/s, loss 0.2 %, 1280×720", "to the site: 420 kb/s, loss 0.0 %", "round trip 45 ms, jitter 3 ms"]);
    expect(numbers(undefined, en)).toEqual([]);
  });

  it("tells of a link that goes over TCP", () => {
    const quality = leg(QualityMark.GOOD, { byTcp: true });
    expect(numbers(quality, en)).toContain("its network blocks UDP: the link goes over TCP");
    expect(numbers(quality, zh)).toContain("会场网络阻断 UDP，链路改走 TCP");
    expect(numbers(leg(QualityMark.GOOD, {}), en).join()).not.toContain("TCP");
  });

  it.each([
    [SlotReason.LIMITED_BY_YOUR_LINK, "limited by your link", "受您的网络限制"],
    [SlotReason.LIMITED_BY_SENDERS_LINK, "limited by the sender's link", "受对方网络限制"],
    [SlotReason.UNSPECIFIED, undefined, undefined],
    [SlotReason.NO_MEDIA, undefined, undefined],
  ])("a slot with reason %d says %s", (reason, english, chinese) => {
    const state = create(SlotStateSchema, { reason });
    expect([limit(state, en), limit(state, zh)]).toEqual([english, chinese]);
  });
});

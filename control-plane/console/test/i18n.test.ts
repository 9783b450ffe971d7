import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { loadWords, numbered, refusalKey, refusalText, translate, type Key, type Numbered } from "../src/i18n";
import { ACTIONS } from "../src/model/authority";
import { COMMANDS } from "../src/model/commands";
import { LAYOUTS } from "../src/model/wall";
import { en as mainEn } from "../src/words/en";
import { moreEn } from "../src/words/more.en";
import { moreZh } from "../src/words/more.zh";
import { zh as mainZh } from "../src/words/zh";
import { QualityReason } from "../src/gen/muster/media/v1/media_pb";
import { Check, Repeat } from "../src/gen/muster/command/v1/command_pb";
import { AnswerPolicy, ChairCause, Fallback, FloorState, Layout, Media, Priority, Role, RollCallResult, SummonsReason, SummonsState, Tier } from "../src/gen/muster/command/v1/types_pb";

const en: Record<Key, string> = { ...mainEn, ...moreEn };
const zh: Record<Key, string> = { ...mainZh, ...moreZh };
const dictionaries = { en, zh };
await Promise.all([loadWords("en", true), loadWords("zh", true)]);

const keys = (lang: "en" | "zh"): string[] => Object.keys(dictionaries[lang]).sort();
const holes = (text: string): string[] => [...text.matchAll(/\{(\w+)\}/g)].map((match) => match[1] ?? "").sort();

describe("words", () => {
  it("has the same keys in both languages", () => {
    expect(keys("zh")).toEqual(keys("en"));
  });

  it("leaves the same holes in both languages", () => {
    for (const key of keys("en") as Key[]) expect([key, holes(dictionaries.zh[key])]).toEqual([key, holes(dictionaries.en[key])]);
  });

  it("leaves no text empty but that of no reason", () => {
    for (const lang of ["en", "zh"] as const) {
      const empty = (Object.keys(dictionaries[lang]) as Key[]).filter((key) => !dictionaries[lang][key]);
      expect(empty).toEqual(["reason.0"]);
    }
  });

  it("has a word for every state, reason and tier of the schema", () => {
    const missing: string[] = [];
    for (const [prefix, list] of [["summons", SummonsState], ["reason", SummonsReason], ["tier", Tier], ["quality.why", QualityReason], ["quality.own", QualityReason], ["role", Role], ["priority", Priority], ["fallback", Fallback], ["media", Media], ["answer", AnswerPolicy], ["floor", FloorState], ["roll", RollCallResult], ["chair", ChairCause], ["repeat", Repeat], ["check", Check], ["layout", Layout]] as const satisfies (readonly [Numbered, object])[]) {
      for (const value of Object.values(list)) {
        if (typeof value === "number" && value !== 0 && numbered(prefix, value) === `${prefix}.0`) missing.push(`${prefix}.${value}`);
      }
    }
    expect(missing).toEqual([]);
  });

  it("has words for every command, turned round too, and a plain action behind each", () => {
    const missing = COMMANDS.flatMap(({ id, words = id, on }) => [`cmd.${words}`, ...(on ? [`cmd.${words}.off`] : [])]).filter((key) => !(key in en));
    expect(missing).toEqual([]);
    expect(COMMANDS.filter(({ action }) => action && !ACTIONS.includes(action))).toEqual([]);
    expect(LAYOUTS).toHaveLength(8);
  });

  it("says a refusal in the reader's language, and in the server's words where its code is new", () => {
    const zh = (key: Key): string => translate("zh", key);
    expect(refusalText({ code: "no_relay", message: "no relay is online" }, zh)).toContain("转发节点");
    expect(refusalText({ code: "of_tomorrow", message: "not today" }, zh)).toBe("not today");
    expect(refusalKey("")).toBeUndefined();
  });

  it("has words for every code of a refusal that the control plane has", () => {
    const root = new URL("../../", import.meta.url);
    const source = ["domain/src/refusal.rs", "src/status.rs"].map((file) => readFileSync(new URL(file, root), "utf8")).join();
    const codes = [...source.matchAll(/(?:=> |coded\([^"]*)"([a-z_]+)"/g)].map((match) => match[1] ?? "");
    // These are answers to programs: a page never sends what they refuse, or says it in words of its own.
    const unseen = ["not_a_report", "bad_request", "wrong_credentials"];
    expect(codes.length).toBeGreaterThan(15);
    expect(codes.filter((code) => !unseen.includes(code) && !refusalKey(code))).toEqual([]);
  });

  it("fills holes and leaves unknown ones visible", () => {
    expect(translate("en", "convene.question", { n: 23, units: "2 streets" })).toBe("Call 23 sites in 2 streets?");
    expect(translate("en", "chosen", {})).toBe("{n} chosen");
  });
});

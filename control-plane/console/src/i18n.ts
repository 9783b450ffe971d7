// The language in use, and how a word is found in it. The words are in `words/`; a key missing in one language is a
// type error, and a test compares them too.

import { Cell, computed } from "./model/cell";
import { browserWorld } from "./model/ports";
import { en, type Key } from "./words/en";
import { zh } from "./words/zh";

export type { Key };

export const dictionaries = { en, zh };
export type Lang = keyof typeof dictionaries;
export type Values = Record<string, string | number>;

export function translate(lang: Lang, key: Key, values: Values = {}): string {
  return dictionaries[lang][key].replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

/** A key made of a prefix and a number from the wire; unknown numbers fall back to `0`. */
export function numbered(prefix: "tier" | "summons" | "reason" | "quality" | "quality.why" | "quality.own" | "slot.limited" | "tile.paused", value: number): Key {
  const key = `${prefix}.${value}`;
  return (key in en ? key : `${prefix}.0`) as Key;
}

/** The key of a refusal's stable word; undefined for a word that is new to this page. */
export function refusalKey(code: string): Key | undefined {
  const key = `refusal.${code}`;
  return key in en ? (key as Key) : undefined;
}

/** A refusal in the reader's language; the server's own sentence where its word is new to this page. */
export function refusalText(reason: { code: string; message: string }, say: (key: Key) => string): string {
  const key = refusalKey(reason.code);
  return key ? say(key) : reason.message;
}

const KEPT = "muster.lang";

function initial(): Lang {
  const kept = browserWorld().kept(KEPT);
  if (kept === "en" || kept === "zh") return kept;
  return typeof navigator !== "undefined" && navigator.language.startsWith("en") ? "en" : "zh";
}

export const lang = new Cell<Lang>(initial());
export const t = computed([lang], (now) => (key: Key, values?: Values) => translate(now, key, values));
/** The name of a unit or site in the language in use. */
export const nameIn = computed([lang], (now) => (thing: { nameZh: string; nameEn: string } | undefined, id = "") => {
  if (!thing) return id;
  return (now === "zh" ? thing.nameZh : thing.nameEn) || thing.nameZh || thing.nameEn || id;
});

export function switchLang(): void {
  const next = lang.get() === "zh" ? "en" : "zh";
  browserWorld().keep(KEPT, next);
  lang.set(next);
}

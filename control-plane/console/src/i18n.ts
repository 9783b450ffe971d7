// The language in use, and how a word is found in it. The words are in `words/`: only those of the language in use are
// loaded, and those of what comes after the first load come after it. A key missing in one language is a type error, and
// a test compares them too.

import { Cell, computed } from "./model/cell";
import { browserWorld } from "./model/ports";
import type { MainKey } from "./words/en";
import type { MoreKey } from "./words/more.en";

export type Key = MainKey | MoreKey;
export type Lang = "en" | "zh";
export type Values = Record<string, string | number>;
export type Say = (key: Key, values?: Values) => string;

type Words = Partial<Record<string, string>>;
const words: Record<Lang, Words> = { en: {}, zh: {} };
const wanted = { main: false, more: false };

const load: Record<keyof typeof wanted, Record<Lang, () => Promise<Words>>> = {
  main: { en: async () => (await import("./words/en")).en, zh: async () => (await import("./words/zh")).zh },
  more: { en: async () => (await import("./words/more.en")).moreEn, zh: async () => (await import("./words/more.zh")).moreZh },
};
/** Goes up when words came. */
const came = new Cell(0);

/** Until it is done, the words of a language are empty. With `more`, also those of what comes after the first load. */
export async function loadWords(of: Lang, more = false): Promise<void> {
  wanted.main = true;
  wanted.more ||= more;
  const parts = await Promise.all((["main", "more"] as const).filter((part) => wanted[part]).map((part) => load[part][of]()));
  words[of] = Object.assign({}, ...parts);
  came.update((times) => times + 1);
}

/** The words of what comes after the first load, in the language in use. */
export const loadMoreWords = (): Promise<void> => loadWords(lang.get(), true);

export function translate(lang: Lang, key: Key, values: Values = {}): string {
  return (words[lang][key] ?? "").replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}

const known = (key: string): key is Key => key in words.en || key in words.zh;

export type Numbered =
  | "tier" | "summons" | "reason" | "role" | "priority" | "fallback" | "media" | "answer" | "floor" | "roll" | "chair" | "repeat" | "check"
  | "layout" | "quality" | "quality.why" | "quality.rung" | "tile.rung" | "quality.own" | "slot.limited" | "tile.paused";

/** A key made of a prefix and a number from the wire; unknown numbers fall back to `0`. */
export function numbered(prefix: Numbered, value: number): Key {
  const key = `${prefix}.${value}`;
  return (known(key) ? key : `${prefix}.0`) as Key;
}

/** The key of a refusal's stable word; undefined for a word that is new to this page. */
export function refusalKey(code: string): Key | undefined {
  const key = `refusal.${code}`;
  return known(key) ? key : undefined;
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
export const t = computed([lang, came], (now): Say => (key, values) => translate(now, key, values));
/** The name of a unit or site in the language in use. */
export const nameIn = computed([lang], (now) => (thing: { nameZh: string; nameEn: string } | undefined, id = "") => {
  if (!thing) return id;
  return (now === "zh" ? thing.nameZh : thing.nameEn) || thing.nameZh || thing.nameEn || id;
});

export async function switchLang(): Promise<void> {
  const next = lang.get() === "zh" ? "en" : "zh";
  // Without a network the language stays as it is.
  if (!(await loadWords(next).then(() => true, () => false))) return;
  browserWorld().keep(KEPT, next);
  lang.set(next);
}

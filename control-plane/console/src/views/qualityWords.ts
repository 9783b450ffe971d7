// The words of a quality mark: what it is, why, and the numbers behind it, a line each.

import { numbered, type Key, type Values } from "../i18n";
import { Rung, type QualityReason, type LegQuality, type PictureSize, type SlotState } from "../gen/muster/media/v1/media_pb";
import type { Health } from "../model/media/slots";
import type { Verdict } from "../model/quality";

export type Say = (key: Key, values?: Values) => string;

export function rate(bps: number): string {
  return bps >= 1_000_000 ? `${(bps / 1_000_000).toFixed(1)} Mb/s` : `${Math.round(bps / 1_000)} kb/s`;
}

const MARKS = [0, 3, 2, 1] as const;

/** "Poor: packets from the site are lost". */
export function headline(verdict: Verdict, say: Say): string {
  const word = say(numbered("quality", MARKS[verdict.bars]));
  if (verdict.of === "nobody" || verdict.bars === 3) return word;
  const why = verdict.of === "here" ? say(`bars.${verdict.reason}`) : reason(verdict, say);
  return why ? say("quality.because", { word, why }) : word;
}

/** A site that sends less says how much less: that tells more than why. */
function reason(verdict: { reason: QualityReason; rung: Rung }, say: Say): string {
  if (verdict.rung > Rung.FULL) return say(numbered("quality.rung", verdict.rung));
  return verdict.reason ? say(numbered("quality.why", verdict.reason)) : "";
}

const size = (picture: PictureSize | undefined): string => (picture?.width ? `${picture.width}×${picture.height}` : "");
const percent = (permille: number): string => (permille / 10).toFixed(1);

function line(key: Key, picture: PictureSize | undefined, bps: number, loss: number, say: Say): string {
  const numbers = say(key, { rate: rate(bps), loss: percent(loss) });
  const pixels = size(picture);
  return pixels ? say("quality.size", { numbers, size: pixels }) : numbers;
}

/** The numbers of a site's leg, under a headline that may have told what it sends already; none while nothing is known. */
export function numbers(quality: LegQuality | undefined, say: Say, above = ""): string[] {
  if (!quality) return [];
  const lines = [
    line("quality.up", quality.published, quality.upBps, quality.upLossPermille, say),
    line("quality.down", quality.shown, quality.downBps, quality.downLossPermille, say),
  ];
  const sends = quality.rung > Rung.FULL ? say(numbered("quality.rung", quality.rung)) : "";
  if (sends && !above.includes(sends)) lines.unshift(sends);
  if (quality.byTcp) lines.push(say("quality.by_tcp"));
  if (quality.rttMs) lines.push(say("quality.rtt", { rtt: quality.rttMs, jitter: quality.jitterMs }));
  if (quality.estimateBps) lines.push(say("quality.estimate", { rate: rate(quality.estimateBps) }));
  return lines;
}

/** How the picture arrives here. */
export function arrival(state: SlotState | undefined, health: Health | undefined, say: Say): string[] {
  if (!state || !health) return [];
  const { fps, bps, lossPermille } = health;
  return [say("bars.detail", { size: `${state.width}×${state.height}`, fps, rate: rate(bps), loss: percent(lossPermille) })];
}

/** Why a slot shows less than was asked for; undefined where it shows it. */
export function limit(state: SlotState | undefined, say: Say, site?: LegQuality): string | undefined {
  if (site?.rung === Rung.SMALL || site?.rung === Rung.STILLS) return say(numbered("tile.rung", site.rung));
  const key = numbered("slot.limited", state?.reason ?? 0);
  return key === "slot.limited.0" ? undefined : say(key);
}

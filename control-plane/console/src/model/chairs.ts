// From whom the chair was taken, as the domain keeps it: each that takes a meeting over puts the one before on a stack,
// and hands back to the last of them; a chair that is given or released ends it all. A snapshot names the last one only,
// so that below it nothing is known until it is read again: `isUnsure` says when. Pure.

import { ChairCause, type ChairChanged, type Meeting } from "../gen/muster/command/v1/types_pb";

/** As in the domain: of more the first are forgotten. */
const MOST = 16;

interface Taken {
  /** From whom it was taken, the last one last. */
  readonly from: readonly string[];
  /** False: there may be more before the first of them. */
  readonly whole: boolean;
}
/** A meeting with what the console has seen of its chairs. */
type Seen = Meeting & { taken?: Taken };

function takenOf({ taken, takenFrom }: Seen): Taken {
  return taken ?? { from: takenFrom ? [takenFrom] : [], whole: takenFrom === "" };
}

export function chairChanged(meeting: Meeting, { chair, before, cause }: ChairChanged): Partial<Seen> {
  const taken = after(takenOf(meeting), chair, before, cause);
  return { chair, taken, takenFrom: taken.from[taken.from.length - 1] ?? "", chairRequests: meeting.chairRequests.filter((account) => account !== chair) };
}

function after(taken: Taken, chair: string, before: string, cause: ChairCause): Taken {
  switch (cause) {
    case ChairCause.TAKEN_OVER: {
      const others = taken.from.filter((account) => account !== chair && account !== before);
      return { ...taken, from: [...others, before].slice(-MOST) };
    }
    case ChairCause.HANDED_BACK:
      // Those who came after, and may have it no more, are passed over.
      return { ...taken, from: taken.from.slice(0, Math.max(0, taken.from.lastIndexOf(chair))) };
    default:
      return { from: [], whole: true };
  }
}

/** Whether it must be read again from whom the chair was taken: handed back to whom the snapshot had not named. */
export function isUnsure(meeting: Meeting): boolean {
  const { from, whole } = takenOf(meeting);
  return !whole && from.length === 0;
}

/** What was read of it; undefined if that is older than what is known. */
export function withTaken(known: Meeting, read: Meeting): Meeting | undefined {
  if (!isUnsure(known) || read.id !== known.id || read.seq < known.seq || read.chair !== known.chair) return undefined;
  const seen: Seen = { ...known, takenFrom: read.takenFrom };
  delete seen.taken;
  return seen;
}

// The parts of the command page that come after its first load.

import { loadMoreWords } from "../../i18n";
import { Later } from "../../model/later";

async function withWords<T>(part: Promise<T>): Promise<T> {
  await loadMoreWords();
  return part;
}

export const live = new Later(() => withWords(import("./live")));
export const finders = new Later(() => withWords(import("./finders")));

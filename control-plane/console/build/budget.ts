// Fails the build when the first load of the command page grows beyond its budget: every script and style sheet that is
// fetched before the tree is shown, compressed, in either language.

import { gzipSync } from "node:zlib";
import type { Plugin } from "vite";

interface Asset {
  text: string | Uint8Array;
  /** Other assets that come with it. */
  needs: readonly string[];
  from: string;
}

/** What is fetched for the page: its entry, its view, and the words of one language. */
const ROOTS = (language: string): RegExp[] => [/src\/main\.ts$|index\.html$/, /views\/App\.svelte$/, new RegExp(`words/${language}\\.ts$`)];

export function weigh(assets: ReadonlyMap<string, Asset>, language: string): number {
  const roots = ROOTS(language);
  const wanted = new Set<string>();
  const take = (name: string): void => {
    if (wanted.has(name) || !assets.has(name)) return;
    wanted.add(name);
    assets.get(name)!.needs.forEach(take);
  };
  for (const [name, { from }] of assets) if (roots.some((root) => root.test(from))) take(name);
  return [...wanted].reduce((sum, name) => sum + gzipSync(assets.get(name)!.text, { level: 9 }).length, 0);
}

export function firstLoad(mostBytes: number): Plugin {
  return {
    name: "first-load",
    apply: "build",
    writeBundle(_options, bundle) {
      const assets = new Map<string, Asset>();
      for (const [name, item] of Object.entries(bundle)) {
        if (item.type === "asset") assets.set(name, { text: item.source, needs: [], from: name });
        else assets.set(name, { text: item.code, needs: [...item.imports, ...(item.viteMetadata?.importedCss ?? [])], from: item.facadeModuleId ?? "" });
      }
      const weights = ["en", "zh"].map((language) => weigh(assets, language));
      const most = Math.max(...weights);
      this.info(`the first load of the command page is ${(most / 1_000).toFixed(1)} kB compressed`);
      if (Math.min(...weights) < 20_000) this.error("the first load was not found in the bundle: build/budget.ts looks for other names");
      if (most > mostBytes) this.error(`the first load of the command page is ${most} bytes compressed; at most ${mostBytes} are allowed: load a part of it later (src/views/desk/parts.ts)`);
    },
  };
}

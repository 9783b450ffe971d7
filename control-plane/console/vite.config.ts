import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";
import { firstLoad } from "./build/budget.ts";
import { smallDescriptors } from "./build/descriptors.ts";

/**
 * Leaves protobuf's JSON form out of the bundle: the console speaks binary gRPC-web only, and the first load must stay
 * under 100 kB. Should something ask for JSON all the same, it fails at once and says so.
 */
function binaryOnly(): Plugin {
  const names: Record<string, string[]> = {
    "from-json.js": ["fromJson", "fromJsonString", "mergeFromJson", "mergeFromJsonString", "enumFromJson", "isEnumJson"],
    "to-json.js": ["toJson", "toJsonString", "enumToJson"],
  };
  return {
    name: "binary-only",
    apply: "build",
    load(id) {
      const file = /@bufbuild\/protobuf\/dist\/esm\/((?:from|to)-json\.js)$/.exec(id)?.[1];
      const left = file ? names[file] : undefined;
      if (!left) return undefined;
      const refuse = `function refuse() { throw new Error("JSON is not part of this build"); }\n`;
      return refuse + left.map((name) => `export const ${name} = refuse;`).join("\n");
    },
  };
}

/**
 * Leaves protobuf's checks of values at run time out of the bundle: the compiler checks what the console sends, and what
 * comes in is decoded by type.
 */
function typesAreChecked(): Plugin {
  return {
    name: "types-are-checked",
    apply: "build",
    load(id) {
      if (!/@bufbuild\/protobuf\/dist\/esm\/reflect\/reflect-check\.js$/.test(id)) return undefined;
      return ["checkField", "checkListItem", "checkMapEntry"].map((name) => `export function ${name}() {}`).join("\n") + "\nexport const formatVal = String;\n";
    },
  };
}

/** Writes a `.gz` beside every script and style sheet: the control plane serves it as it is. */
function compressed(): Plugin {
  return {
    name: "compressed",
    apply: "build",
    writeBundle(options, bundle) {
      for (const name of Object.keys(bundle).filter((name) => /\.(js|css)$/.test(name))) {
        const file = join(options.dir ?? "dist", name);
        writeFileSync(`${file}.gz`, gzipSync(readFileSync(file), { level: 9 }));
      }
    },
  };
}

// Chrome 87 is the oldest browser that the site page must run in (an old PC in a village office).
export default defineConfig({
  plugins: [svelte(), smallDescriptors(), binaryOnly(), typesAreChecked(), compressed(), firstLoad(100_000)],
  build: {
    target: "chrome87",
    cssTarget: "chrome87",
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    port: 5173,
    proxy: { "/muster.": process.env.MUSTER_CONTROL_PLANE ?? "http://127.0.0.1:8080" },
  },
  test: {
    environment: "node",
    include: ["test/**/*.test.ts"],
  },
});

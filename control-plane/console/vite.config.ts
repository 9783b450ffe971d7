import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

// Chrome 87 is the oldest browser that the site page must run in (an old PC in a village office).
export default defineConfig({
  plugins: [svelte()],
  build: {
    target: "chrome87",
    cssTarget: "chrome87",
    modulePreload: { polyfill: false },
    // One style sheet: the tokens are shared by both pages.
    cssCodeSplit: false,
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

// Light or dark: dark unless this browser was told otherwise.

import { browserWorld } from "./model/ports";

const KEPT = "muster.theme";

export function applyTheme(): void {
  document.documentElement.setAttribute("data-theme", browserWorld().kept(KEPT) === "light" ? "light" : "dark");
}

export function switchTheme(): void {
  browserWorld().keep(KEPT, browserWorld().kept(KEPT) === "light" ? "dark" : "light");
  applyTheme();
}

// What opens over the page by a key or a right click: fetched right after the first load.

export { default as Palette } from "./Palette.svelte";
export { default as SiteMenu } from "./SiteMenu.svelte";

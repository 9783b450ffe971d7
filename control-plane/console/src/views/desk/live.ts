// What is needed only while a meeting is in view. The first load of the page leaves it out; it is fetched right after, so
// that it is there before anybody has been called.

export { default as Chair } from "./Chair.svelte";
export { default as Floor } from "./Floor.svelte";
export { default as Live } from "./Live.svelte";
export { default as RollCall } from "./RollCall.svelte";

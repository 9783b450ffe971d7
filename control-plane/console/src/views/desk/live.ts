// What is needed only while a meeting is in view. The first load of the page leaves it out; it is fetched right after, so
// that it is there before anybody has been called.

export { default as Live } from "./Live.svelte";
export { default as Meetings } from "./Meetings.svelte";
export { default as MeetingSide } from "./MeetingSide.svelte";

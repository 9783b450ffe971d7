// The names of the marks of a state; `Mark.svelte` draws them.

export type MarkName = "on_air" | "ringing" | "attention" | "unreachable" | "idle" | "online" | "offline";

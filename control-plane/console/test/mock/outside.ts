import type { Outside } from "../../src/outside";
export function mockOutside(): Outside {
  throw new Error("not yet");
}

// Keeps the screen of a phone on while the person waits for a call or is in a meeting, where the browser can.

import type { Readable } from "../../model/cell";
import type { JoinState } from "../../model/endpoint";

export function keepAwake(state: Readable<JoinState>): () => void {
  let lock: WakeLockSentinel | undefined;
  let wanted = false;

  async function hold(): Promise<void> {
    if (!wanted || lock || document.visibilityState !== "visible" || !("wakeLock" in navigator)) return;
    try {
      lock = await navigator.wakeLock.request("screen");
      // The browser lets go of it by itself when the page is hidden.
      lock.addEventListener("release", () => (lock = undefined));
    } catch {
      lock = undefined;
    }
  }
  const seen = (): void => void hold();
  document.addEventListener("visibilitychange", seen);
  const stop = state.subscribe(({ kind }) => {
    wanted = kind !== "error" && kind !== "connecting";
    void hold();
  });
  return () => {
    stop();
    document.removeEventListener("visibilitychange", seen);
    wanted = false;
    void lock?.release();
  };
}

// Who is signed in. Keeps the session token over a reload and checks it with the control plane at the start. It holds
// no password after the call that needed it.

import type { Account } from "../gen/muster/command/v1/types_pb";
import { outcome, type Api, type Failure } from "./api";
import { Cell } from "./cell";
import { sleep, type World } from "./ports";

const KEPT = "muster.session";
/** What shows that somebody signed in to an account here before: it opens nothing, and spares the wait among strangers. */
const KEPT_DEVICE = "muster.device.";
const DEVICE_HEADER = "muster-device";
/** argon2 takes its time on a small machine that is busy; strangers wait for their turn where an account is guessed at. */
const ANSWER_MS = 30_000;

export type SessionState =
  | { kind: "checking"; unreachable: boolean }
  | { kind: "signed_out"; expired: boolean }
  | { kind: "signed_in"; account: Account };

export class Session {
  readonly state: Cell<SessionState>;
  private token: string;

  constructor(
    private readonly world: World,
    private readonly api: () => Api,
  ) {
    this.token = world.kept(KEPT) ?? "";
    this.state = new Cell<SessionState>(
      this.token ? { kind: "checking", unreachable: false } : { kind: "signed_out", expired: false },
    );
  }

  bearer(): string {
    return this.token;
  }

  /** Asks who the kept token belongs to, until somebody answers. */
  async resume(): Promise<void> {
    while (this.token) {
      const answer = await outcome(this.api().session.whoAmI({}, { timeoutMs: ANSWER_MS }));
      if (answer.kind === "ok" && answer.value.account) {
        return this.state.set({ kind: "signed_in", account: answer.value.account });
      }
      if (answer.kind !== "unreachable") return this.forget(true);
      this.state.set({ kind: "checking", unreachable: true });
      await sleep(this.world, 2_000);
    }
  }

  async signIn(account: string, password: string): Promise<Failure | undefined> {
    let device = this.world.kept(KEPT_DEVICE + account) ?? "";
    const options = {
      timeoutMs: ANSWER_MS,
      headers: device ? { [DEVICE_HEADER]: device } : {},
      onHeader: (told: Headers): void => void (device = told.get(DEVICE_HEADER) ?? device),
    };
    const answer = await outcome(this.api().session.signIn({ account, password }, options));
    if (answer.kind !== "ok") return answer;
    if (!answer.value.account) return { kind: "unreachable", code: "", message: "the answer names no account" };
    this.token = answer.value.sessionToken;
    this.world.keep(KEPT, this.token);
    if (device) this.world.keep(KEPT_DEVICE + account, device);
    this.state.set({ kind: "signed_in", account: answer.value.account });
    return undefined;
  }

  async signOut(): Promise<void> {
    await outcome(this.api().session.signOut({}, { timeoutMs: 2_000 }));
    this.forget(false);
  }

  /** The control plane no longer knows the token. */
  expire(): void {
    this.forget(true);
  }

  private forget(expired: boolean): void {
    this.token = "";
    this.world.keep(KEPT, null);
    this.state.set({ kind: "signed_out", expired });
  }
}

// Accounts for who may manage them: read, changed, read again. A delegation is a role with an end: given on the manager's
// own unit, and never later than the manager's own end. The control plane refuses what reaches further.

import type { RefusalRecord, Session } from "../gen/muster/command/v1/command_pb";
import { Role, type Account, type Grant } from "../gen/muster/command/v1/types_pb";
import { outcome, type Api, type Failure } from "./api";
import { Cell } from "./cell";

const LIMIT = { timeoutMs: 10_000 };
export const DELEGATION_H = 4;

export const counts = (grant: Grant, nowMs: number): boolean => grant.expiresMs === 0n || Number(grant.expiresMs) > nowMs;

export class Accounts {
  readonly list = new Cell<readonly Account[] | undefined>(undefined);
  readonly refusals = new Cell<readonly RefusalRecord[] | undefined>(undefined);
  readonly failure = new Cell<Failure | undefined>(undefined);

  constructor(private readonly api: Api) {}

  async read(): Promise<void> {
    const answer = await outcome(this.api.account.listAccounts({}, LIMIT));
    if (answer.kind === "ok") this.list.set(answer.value.accounts);
    else this.failure.set(answer);
  }

  async readRefusals(): Promise<void> {
    const answer = await outcome(this.api.account.listRefusals({ limit: 100 }, LIMIT));
    if (answer.kind === "ok") this.refusals.set(answer.value.refusals);
    else this.failure.set(answer);
  }

  put(name: string, displayName: string, password: string): Promise<boolean> {
    return this.change(this.api.account.putAccount({ name, displayName, password }, LIMIT));
  }

  /** `expiresMs` 0: for good. */
  grant(account: string, role: Role, unit: string, expiresMs: number): Promise<boolean> {
    return this.change(this.api.account.grantRole({ account, role, unit, expiresMs: BigInt(Math.round(expiresMs)) }, LIMIT));
  }

  /** Duty officer of the unit for a few hours, no longer than `atMostMs` where that is set. */
  delegate(account: string, unit: string, nowMs: number, atMostMs = 0): Promise<boolean> {
    const end = nowMs + DELEGATION_H * 3_600_000;
    return this.grant(account, Role.DUTY_OFFICER, unit, atMostMs ? Math.min(end, atMostMs) : end);
  }

  revoke(account: string, { role, unit }: Grant): Promise<boolean> {
    return this.change(this.api.account.revokeRole({ account, role, unit }, LIMIT));
  }

  async sessions(account: string): Promise<readonly Session[]> {
    const answer = await outcome(this.api.session.listSessions({ account }, LIMIT));
    if (answer.kind === "ok") return answer.value.sessions;
    this.failure.set(answer);
    return [];
  }

  /** How many were ended; undefined if it was refused. */
  async endSessions(account: string): Promise<number | undefined> {
    const answer = await outcome(this.api.session.revokeSessions({ account }, LIMIT));
    this.failure.set(answer.kind === "ok" ? undefined : answer);
    return answer.kind === "ok" ? answer.value.revoked : undefined;
  }

  private async change(call: Promise<unknown>): Promise<boolean> {
    const answer = await outcome(call);
    this.failure.set(answer.kind === "ok" ? undefined : answer);
    if (answer.kind === "ok") await this.read();
    return answer.kind === "ok";
  }
}

// The mock's services beside the meeting: plans, accounts and the log. Everything is kept in memory.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import {
  AccountService,
  AttendanceSchema,
  Check,
  DrillResultSchema,
  DrillSchema,
  LogService,
  PlanService,
  ReportService,
  RefusalRecordSchema,
  SessionSchema,
  type Drill,
  type Preset,
  type RefusalRecord,
  type Schedule,
} from "../../src/gen/muster/command/v1/command_pb";
import { AccountSchema, GrantSchema, Role, SummonsReason, type Account, type Report } from "../../src/gen/muster/command/v1/types_pb";
import type { MockControlPlane } from "./control-plane";

export class Offices {
  presets: Preset[] = [];
  schedules: Schedule[] = [];
  drills: Drill[] = [];
  /** Newest first. */
  reports: Report[] = [];
  accounts: Account[] = [];
  refusals: RefusalRecord[] = [];
  private number = 0;

  constructor(private readonly plane: MockControlPlane) {
    const unit = plane.options.units[1]?.id ?? "";
    const grant = (role: Role, expiresMs = 0n, on = unit) => create(GrantSchema, { role, unit: on, expiresMs, grantedBy: "duty", grantedMs: BigInt(Date.now()) });
    this.accounts = [
      create(AccountSchema, { name: "duty", displayName: "值班员", grants: [grant(Role.COMMANDER)] }),
      create(AccountSchema, { name: "li.na", displayName: "李娜", grants: [grant(Role.DUTY_OFFICER, BigInt(Date.now() + 3 * 3_600_000))] }),
      create(AccountSchema, { name: "wang.wei", displayName: "王伟", grants: [grant(Role.ENGINEER), grant(Role.DUTY_OFFICER, BigInt(Date.now() - 7_200_000))] }),
      create(AccountSchema, { name: "audit", displayName: "审计", grants: [] }),
    ];
    this.refusals = [create(RefusalRecordSchema, { atMs: BigInt(Date.now() - 600_000), account: "li.na", action: "end_meeting", reason: "only the chair may end the meeting" })];
  }

  serve(router: ConnectRouter): void {
    const { plane } = this;
    router.service(ReportService, {
      listReports: ({ limit, page }) => {
        const from = Number(page || 0);
        const reports = this.reports.slice(from, from + (limit || 50));
        const next = from + reports.length;
        return { reports, nextPage: next < this.reports.length ? String(next) : "" };
      },
    });
    router.service(PlanService, {
      listPlans: () => ({ presets: this.presets, schedules: this.schedules, drills: this.drills.map((drill): Drill => ({ ...drill, results: [] })) }),
      savePreset: ({ preset }) => {
        const saved: Preset = { ...preset!, id: preset!.id || `p${(this.number += 1)}` };
        this.presets = [...this.presets.filter(({ id }) => id !== saved.id), saved];
        return { preset: saved };
      },
      deletePreset: ({ preset }) => ((this.presets = this.presets.filter(({ id }) => id !== preset)), {}),
      saveSchedule: ({ schedule }) => {
        const saved: Schedule = { ...schedule!, id: schedule!.id || `s${(this.number += 1)}`, account: "duty" };
        this.schedules = [...this.schedules.filter(({ id }) => id !== saved.id), saved];
        return { schedule: saved };
      },
      deleteSchedule: ({ schedule }) => ((this.schedules = this.schedules.filter(({ id }) => id !== schedule)), {}),
      startDrill: ({ selector }) => {
        const sites = plane.resolve(selector!);
        const drill = create(DrillSchema, { id: `d${(this.number += 1)}`, by: "duty", startedMs: BigInt(Date.now()), endedMs: BigInt(Date.now()), asked: sites.length, results: sites.map((site, at) => this.check(site, at)) });
        drill.ready = drill.results.filter(({ link, camera, microphone, clock }) => [link, camera, microphone, clock].every((check) => check === Check.OK)).length;
        this.drills = [drill, ...this.drills];
        return { drill };
      },
      getDrill: ({ drill }) => {
        const found = this.drills.find(({ id }) => id === drill);
        if (!found) throw new ConnectError("no such drill", Code.NotFound);
        return { drill: found };
      },
      setAnswerPolicy: ({ selector }) => ({ sites: plane.resolve(selector!).length }),
    });
    router.service(AccountService, {
      listAccounts: () => ({ accounts: this.accounts }),
      putAccount: ({ name, displayName, password }) => {
        const known = this.accounts.find((account) => account.name === name);
        if (!known && !password) throw new ConnectError("password: expected 8 characters at least", Code.InvalidArgument, { "muster-code": "bad_text" });
        return { account: this.put(create(AccountSchema, { name, displayName, grants: known?.grants ?? [] })) };
      },
      grantRole: ({ account, role, unit, expiresMs }) => {
        const known = this.accounts.find(({ name }) => name === account)!;
        const others = known.grants.filter((grant) => grant.role !== role || grant.unit !== unit);
        return { account: this.put(create(AccountSchema, { ...known, grants: [...others, create(GrantSchema, { role, unit, expiresMs, grantedBy: "duty", grantedMs: BigInt(Date.now()) })] })) };
      },
      revokeRole: ({ account, role, unit }) => {
        const known = this.accounts.find(({ name }) => name === account)!;
        return { account: this.put(create(AccountSchema, { ...known, grants: known.grants.filter((grant) => grant.role !== role || grant.unit !== unit) })) };
      },
      listRefusals: () => ({ refusals: this.refusals }),
    });
    router.service(LogService, {
      getAttendance: () => ({ attendances: this.attendance() }),
      listRollCalls: () => ({ rollCalls: plane.last?.rollCall ? [plane.last.rollCall] : [] }),
    });
  }

  sessions(account: string) {
    return [create(SessionSchema, { id: "s1", account: account || "duty", createdMs: BigInt(Date.now() - 3_600_000), expiresMs: BigInt(Date.now() + 36_000_000), current: true })];
  }

  private put(account: Account): Account {
    this.accounts = [...this.accounts.filter(({ name }) => name !== account.name), account].sort((a, b) => (a.name < b.name ? -1 : 1));
    return account;
  }

  private check(site: string, at: number) {
    const online = this.plane.presence.get(site)?.online;
    if (!online) return create(DrillResultSchema, { site, reason: SummonsReason.OFFLINE, link: Check.FAILED });
    const clock = at % 11 === 7 ? Check.FAILED : Check.OK;
    return create(DrillResultSchema, { site, link: Check.OK, camera: at % 9 === 4 ? Check.FAILED : Check.OK, microphone: at % 13 === 5 ? Check.BUSY : Check.OK, clock, clockOffMs: clock === Check.FAILED ? 7_400n : 12n, rttMs: 18 + (at % 40), atMs: BigInt(Date.now()) });
  }

  private attendance() {
    const meeting = this.plane.last;
    return (meeting?.summonses ?? []).filter(({ onAirMs }) => onAirMs > 0n).map(({ site, onAirMs }, at) => {
      const end = meeting!.endedMs || 0n;
      const gap = at % 6 === 3;
      const middle = onAirMs + 60_000n;
      const spans = gap ? [{ fromMs: onAirMs, toMs: middle }, { fromMs: middle + 21_000n, toMs: end }] : [{ fromMs: onAirMs, toMs: end }];
      return create(AttendanceSchema, { site, onAir: spans, totalMs: (end || BigInt(Date.now())) - onAirMs });
    });
  }
}

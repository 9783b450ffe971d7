// What is prepared, as the control plane has it: presets, schedules, drills. Read when the desk starts and whenever the
// Watch stream says that something changed; a change made here is seen when it comes back from there. A lost answer
// leaves what was known.

import type { Drill, ListPlansResponse, Preset, Schedule } from "../gen/muster/command/v1/command_pb";
import type { Selector } from "../gen/muster/command/v1/types_pb";
import { outcome, type Api, type Failure, type Outcome } from "./api";
import { Cell } from "./cell";

const ANSWER_MS = 10_000;

export class Plans {
  readonly presets = new Cell<readonly Preset[]>([]);
  readonly schedules = new Cell<readonly Schedule[]>([]);
  /** Newest first, without their results. */
  readonly drills = new Cell<readonly Drill[]>([]);
  private reading = false;
  private again = false;

  constructor(private readonly api: Api) {}

  /** One reading at a time; what changes during one is read after it. */
  async read(): Promise<void> {
    if (this.reading) {
      this.again = true;
      return;
    }
    this.reading = true;
    do {
      this.again = false;
      const answer = await outcome(this.api.plan.listPlans({}, { timeoutMs: ANSWER_MS }));
      if (answer.kind === "ok") this.take(answer.value);
    } while (this.again);
    this.reading = false;
  }

  presetName(id: string): string {
    return this.presets.get().find((preset) => preset.id === id)?.name ?? id;
  }

  savePreset(preset: Preset): Promise<Failure | undefined> {
    return this.change(this.api.plan.savePreset({ preset }, { timeoutMs: ANSWER_MS }));
  }
  deletePreset(preset: string): Promise<Failure | undefined> {
    return this.change(this.api.plan.deletePreset({ preset }, { timeoutMs: ANSWER_MS }));
  }
  saveSchedule(schedule: Schedule): Promise<Failure | undefined> {
    return this.change(this.api.plan.saveSchedule({ schedule }, { timeoutMs: ANSWER_MS }));
  }
  deleteSchedule(schedule: string): Promise<Failure | undefined> {
    return this.change(this.api.plan.deleteSchedule({ schedule }, { timeoutMs: ANSWER_MS }));
  }

  startDrill(selector: Selector): Promise<Outcome<Drill | undefined>> {
    return this.drill(this.api.plan.startDrill({ selector }, { timeoutMs: ANSWER_MS }));
  }
  /** With its results so far. */
  getDrill(drill: string): Promise<Outcome<Drill | undefined>> {
    return this.drill(this.api.plan.getDrill({ drill }, { timeoutMs: ANSWER_MS }));
  }

  private async drill(call: Promise<{ drill?: Drill | undefined }>): Promise<Outcome<Drill | undefined>> {
    const answer = await outcome(call);
    return answer.kind === "ok" ? { kind: "ok", value: answer.value.drill } : answer;
  }

  private async change(call: Promise<unknown>): Promise<Failure | undefined> {
    const answer = await outcome(call);
    if (answer.kind !== "ok") return answer;
    await this.read();
    return undefined;
  }

  private take({ presets, schedules, drills }: ListPlansResponse): void {
    this.presets.set(presets);
    this.schedules.set(schedules);
    this.drills.set(drills);
  }
}

// The verbs of a meeting that go over `Act`, in the words of the trade. Each is one command; what came of it is seen on
// the Watch stream. It holds no state and decides nothing.

import { create } from "@bufbuild/protobuf";
import { ActRequestSchema, type ActRequest } from "../gen/muster/command/v1/command_pb";
import type { Layout, Selector } from "../gen/muster/command/v1/types_pb";

/** How long a floor is granted for, in seconds. */
export const FLOOR_S = 60;
export const ROLL_CALL_S = 15;
export const EXTEND_MINUTES = 15;

type Verb = ActRequest["verb"];
type CaseOf = Exclude<Verb["case"], undefined>;
type ValueOf<C extends CaseOf> = Omit<Extract<Verb, { case: C }>["value"], "$typeName" | "$unknown">;

export type SendAct = (request: ActRequest) => Promise<void>;

export class Verbs {
  constructor(
    private readonly meeting: () => string,
    private readonly send: SendAct,
  ) {}

  private act<C extends CaseOf>(verb: C, value: ValueOf<C>): Promise<void> {
    return this.send(create(ActRequestSchema, { meeting: this.meeting(), verb: { case: verb, value } as never }));
  }

  addSites = (selector: Selector) => this.act("addSites", { selector });
  hangUp = (sites: readonly string[]) => this.act("hangUp", { sites: [...sites] });
  lock = (locked: boolean) => this.act("lock", { locked });
  extend = (minutes: number) => this.act("extend", { minutes });

  requestChair = (withdraw: boolean) => this.act("requestChair", { withdraw });
  answerChair = (account: string, granted: boolean) => this.act("answerChairRequest", { account, granted });
  releaseChair = () => this.act("releaseChair", {});
  takeOver = () => this.act("takeOver", {});
  handBack = () => this.act("handBack", {});

  layout = (layout: Layout) => this.act("setLayout", { layout });
  polling = (on: boolean, intervalS = 0, perPage = 0, paused = false) => this.act("setPolling", { on, intervalS, perPage, paused });
  turnPage = (by: number) => this.act("turnPage", { by });
  voiceSwitching = (on: boolean) => this.act("setVoiceSwitching", { on });
  watchSite = (site: string) => this.act("watchSite", { site });
  content = (site: string) => this.act("setContent", { site });

  startRollCall = (answerS: number, sites: readonly string[] = []) => this.act("startRollCall", { answerS, sites: [...sites] });
  nextRollCall = (site = "") => this.act("nextRollCall", { site });
  acknowledge = (site: string) => this.act("acknowledgeRollCall", { site });
  endRollCall = () => this.act("endRollCall", {});

  grantFloor = (site: string, seconds = FLOOR_S) => this.act("grantFloor", { site, seconds });
  takeFloor = (site: string) => this.act("takeFloor", { site });
}

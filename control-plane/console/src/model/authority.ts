// What the person at this desk may do, as the control plane says it on the Watch stream: at all, and in each meeting.
// What one may not do is not shown. A control plane that has said nothing yet hides nothing: it refuses by itself.

import type { Permissions } from "../gen/muster/command/v1/command_pb";
import { Cell } from "./cell";

/** The words of the domain's actions. */
export const ACTIONS = [
  "view", "convene", "call_unconnected", "add_sites", "hang_up", "mute", "broadcast", "set_stage", "watch_site", "roll_call", "floor",
  "lock", "extend", "end_meeting", "request_chair", "release_chair", "take_over", "hand_back", "join_as_desk", "manage_presets",
  "schedule", "drill", "set_answer_policy", "import_sites", "enrol", "create_site_link", "manage_accounts", "read_log",
] as const;
export type Action = (typeof ACTIONS)[number];

export type May = (action: Action) => boolean;

const EVERYTHING: May = () => true;

export class Authority {
  /** In the meeting in view; of what is of no meeting, at all. */
  readonly may = new Cell<May>(EVERYTHING);
  private general: ReadonlySet<string> | undefined;
  private readonly meetings = new Map<string, ReadonlySet<string>>();
  private inView = "";

  /** A new snapshot: what is said from now on counts. */
  anew(): void {
    this.general = undefined;
    this.meetings.clear();
  }

  take({ meeting, actions }: Permissions): void {
    const set = new Set(actions);
    if (!meeting) this.general = set;
    else if (set.size > 0) this.meetings.set(meeting, set);
    else this.meetings.delete(meeting);
    this.show();
  }

  view(meeting: string): void {
    if (this.inView === meeting) return;
    this.inView = meeting;
    this.show();
  }

  forget(meeting: string): void {
    this.meetings.delete(meeting);
  }

  private show(): void {
    const { general } = this;
    const own = this.inView ? this.meetings.get(this.inView) : undefined;
    if (!general && !own) return this.may.set(EVERYTHING);
    this.may.set((action) => (own?.has(action) ?? false) || (!(own && OF_A_MEETING.has(action)) && (general?.has(action) ?? true)));
  }
}

/** Of these only what is said of the meeting counts, once something is. */
const OF_A_MEETING: ReadonlySet<Action> = new Set<Action>([
  "call_unconnected", "add_sites", "hang_up", "mute", "broadcast", "set_stage", "watch_site", "roll_call", "floor", "lock", "extend",
  "end_meeting", "request_chair", "release_chair", "take_over", "hand_back", "join_as_desk",
]);

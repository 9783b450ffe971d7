// Sends what the views wish to see to the relay of the leg in use. Invariant: one request is in flight at a time, the
// whole wish is sent each time, and what changed meanwhile goes with the next. It gives up on a wish that the relay
// calls wrong, and on a leg that another has replaced.

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, type Client } from "@connectrpc/connect";
import {
  MediaService,
  SetViewRequestSchema,
  SlotWishSchema,
  SourceKind,
  type SlotWish,
} from "../../gen/muster/media/v1/media_pb";
import { sleep, type World } from "../ports";
import type { LegConnection } from "./rtc";

/** What a view wishes to see in a slot, in device pixels; no site means the stage. */
export interface Wish {
  slot: string;
  site?: string;
  /** What the site shows beside its camera. */
  content?: boolean;
  width: number;
  height: number;
}

/** The leg in use, and how its relay is spoken to. */
export interface OpenLegAt {
  leg: LegConnection;
  media: Client<typeof MediaService>;
}

export class Wishes {
  private list: readonly Wish[] = [];
  private sending = false;
  private again = false;

  constructor(
    private readonly world: World,
    /** The leg in use at this moment. */
    private readonly leg: () => OpenLegAt | undefined,
    /** Ends waiting for another try. */
    private readonly signal: () => AbortSignal,
  ) {}

  set(wishes: readonly Wish[]): void {
    this.list = wishes;
    void this.send();
  }

  async send(): Promise<void> {
    if (this.sending) {
      this.again = true;
      return;
    }
    const to = this.leg();
    if (!to) return;
    this.sending = true;
    try {
      await to.media.setView(create(SetViewRequestSchema, { wishes: wire(to.leg, this.list) }), { timeoutMs: 3_000 });
    } catch (error) {
      // The relay is away or has dropped the leg: the listener finds out; try again meanwhile. A wish that it calls
      // wrong would be wrong again.
      const wrong = ConnectError.from(error).code === Code.InvalidArgument;
      if (!wrong) await sleep(this.world, 500, this.signal());
      this.again ||= !wrong && this.leg()?.leg === to.leg && !this.signal().aborted;
    }
    this.sending = false;
    if (!this.again && this.leg()?.leg === to.leg) return;
    this.again = false;
    void this.send();
  }
}

function wire(leg: LegConnection, wishes: readonly Wish[]): SlotWish[] {
  const mids = new Map(leg.slots.map((slot) => [slot.name, slot.mid]));
  return wishes.flatMap(({ slot, site, content, width, height }) => {
    const mid = mids.get(slot);
    if (mid === undefined) return [];
    const what: SlotWish["what"] =
      site === undefined
        ? { case: "stage", value: { $typeName: "muster.media.v1.StageRef" } }
        : { case: "source", value: { $typeName: "muster.media.v1.SourceRef", site, kind: content ? SourceKind.CONTENT : SourceKind.CAMERA } };
    return [create(SlotWishSchema, { slot: mid, what, maxWidth: width, maxHeight: height })];
  });
}

import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";
import { describe, expect, it } from "vitest";
import { WatchResponseSchema, WatchService, type WatchResponse } from "../src/gen/muster/command/v1/command_pb";
import { Watch } from "../src/model/watch";
import { Queue } from "./mock/queue";
import { settle, TestWorld } from "./world";

/** A server whose streams the test holds in its hands. */
function server() {
  const streams: { cursor: [string, bigint][]; queue: Queue<WatchResponse> }[] = [];
  let refusal: Code | undefined;
  const transport = createRouterTransport(({ service }) => {
    service(WatchService, {
      async *watch({ cursor }, { signal }) {
        if (refusal) throw new ConnectError("no", refusal);
        const queue = new Queue<WatchResponse>();
        streams.push({ cursor: cursor.map(({ stream, seq }) => [stream, seq]), queue });
        yield* queue.read(signal);
      },
    });
  });
  const push = (event: WatchResponse["event"]): void => streams[streams.length - 1]!.queue.push(create(WatchResponseSchema, { event }));
  return {
    streams,
    client: createClient(WatchService, transport),
    refuse: (code: Code | undefined) => (refusal = code),
    snapshot: (seq: bigint) => push({ case: "snapshot", value: { meetings: [{ id: "m", seq }] } as never }),
    event: (seq: bigint) => push({ case: "meetingEvent", value: { meeting: "m", seq, event: { case: undefined } } as never }),
    beat: () => push({ case: "heartbeat", value: {} as never }),
  };
}

function start() {
  const world = new TestWorld();
  const remote = server();
  const seen: bigint[] = [];
  const watch = new Watch(remote.client, world, ({ event }) => {
    if (event.case === "meetingEvent") seen.push(event.value.seq);
  });
  const done = watch.run();
  return { world, remote, seen, watch, done };
}

describe("the watch stream", () => {
  it("resumes after the last event that it has seen, and repeats none", async () => {
    const { world, remote, seen, watch } = start();
    await settle();
    expect(remote.streams[0]?.cursor).toEqual([]);
    remote.snapshot(4n);
    remote.event(4n);
    remote.event(5n);
    await settle();
    remote.streams[0]!.queue.close();
    await world.pass(1_000);
    expect(remote.streams[1]?.cursor).toEqual([["m", 5n]]);
    remote.event(5n);
    remote.event(6n);
    await settle();
    expect(seen).toEqual([5n, 6n]);
    watch.stop();
  });

  it("starts over from a snapshot when an event is missing", async () => {
    const { world, remote, seen, watch } = start();
    await settle();
    remote.snapshot(4n);
    remote.event(7n);
    await world.pass(1_000);
    expect(seen).toEqual([]);
    expect(remote.streams[1]?.cursor).toEqual([]);
    watch.stop();
  });

  it("takes a silent stream for lost, but not one that beats", async () => {
    const { world, remote, watch } = start();
    await settle();
    for (let second = 0; second < 4; second++) {
      remote.beat();
      await world.pass(1_000);
    }
    remote.beat();
    await world.pass(2_400);
    expect(watch.connection.get().kind).toBe("live");
    expect(remote.streams).toHaveLength(1);
    await world.pass(200);
    expect(watch.connection.get().kind).toBe("lost");
    await world.pass(1_000);
    expect(remote.streams).toHaveLength(2);
    watch.stop();
  });

  it("tries again at once when a stream that was well is lost, and then less and less often", async () => {
    const { world, remote, watch } = start();
    await settle();
    for (let second = 0; second < 6; second++) {
      remote.beat();
      await world.pass(1_000);
    }
    remote.streams[0]!.queue.close();
    await settle();
    expect(remote.streams).toHaveLength(2);
    // The replica that took over dies as well: that one was not well yet.
    remote.streams[1]!.queue.close();
    await settle();
    expect(remote.streams).toHaveLength(2);
    await world.pass(600);
    expect(remote.streams).toHaveLength(3);
    watch.stop();
  });

  it("says since when it is lost, over many attempts", async () => {
    const { world, remote, watch } = start();
    await settle();
    remote.beat();
    await settle();
    const from = world.now();
    remote.refuse(Code.Unavailable);
    remote.streams[0]!.queue.close();
    await world.pass(30_000);
    expect(watch.connection.get()).toMatchObject({ kind: "lost", sinceMs: from });
    remote.refuse(undefined);
    await world.pass(8_000);
    remote.beat();
    await settle();
    expect(watch.connection.get().kind).toBe("live");
    watch.stop();
  });

  it("stops at a session that has ended", async () => {
    const { remote, watch, done, world } = start();
    await settle();
    remote.refuse(Code.Unauthenticated);
    remote.streams[0]!.queue.close();
    await world.pass(1_000);
    await done;
    expect(watch.connection.get().kind).toBe("signed_out");
  });
});

// Calls to the control plane, each with an outcome that is a value: nothing here throws. A view switches over
// `kind`; the message of a refusal is the server's own sentence in English, its code the stable word by which `i18n.ts`
// has the sentence in the reader's language. It holds the session token in memory only: who
// keeps it over a reload is `session.ts`.

import { Code, ConnectError, createClient, type Client, type Interceptor, type Transport } from "@connectrpc/connect";
import { AccountService, DirectoryService, LogService, MeetingService, PlanService, ReportService, SessionService, WatchService } from "../gen/muster/command/v1/command_pb";

export interface Reason {
  /** As in the metadata `muster-code`; empty where the server sent none (a proxy's answer, no answer at all). */
  code: string;
  message: string;
}

export type Failure =
  | { kind: "signed_out" }
  | ({ kind: "denied" | "invalid" | "refused" | "not_found" | "unreachable" } & Reason);

export type Outcome<T> = { kind: "ok"; value: T } | Failure;

export function failureOf(error: unknown): Failure {
  const known = ConnectError.from(error);
  const reason: Reason = { code: known.metadata.get("muster-code") ?? "", message: known.rawMessage };
  switch (known.code) {
    case Code.Unauthenticated:
      return { kind: "signed_out" };
    case Code.PermissionDenied:
      return { kind: "denied", ...reason };
    case Code.InvalidArgument:
      return { kind: "invalid", ...reason };
    case Code.FailedPrecondition:
    case Code.ResourceExhausted:
    case Code.AlreadyExists:
    case Code.Aborted:
    case Code.Unimplemented:
      return { kind: "refused", ...reason };
    case Code.NotFound:
      return { kind: "not_found", ...reason };
    default:
      return { kind: "unreachable", ...reason };
  }
}

export async function outcome<T>(call: Promise<T>): Promise<Outcome<T>> {
  try {
    return { kind: "ok", value: await call };
  } catch (error) {
    return failureOf(error);
  }
}

/** Puts the bearer token of `token()` on every call; none where it is empty. */
export function bearer(token: () => string): Interceptor {
  return (next) => (request) => {
    const value = token();
    if (value) request.header.set("authorization", `Bearer ${value}`);
    return next(request);
  };
}

export interface Api {
  session: Client<typeof SessionService>;
  directory: Client<typeof DirectoryService>;
  meeting: Client<typeof MeetingService>;
  watch: Client<typeof WatchService>;
  plan: Client<typeof PlanService>;
  account: Client<typeof AccountService>;
  log: Client<typeof LogService>;
  report: Client<typeof ReportService>;
}

export function createApi(transport: Transport): Api {
  return {
    session: createClient(SessionService, transport),
    directory: createClient(DirectoryService, transport),
    meeting: createClient(MeetingService, transport),
    watch: createClient(WatchService, transport),
    plan: createClient(PlanService, transport),
    account: createClient(AccountService, transport),
    log: createClient(LogService, transport),
    report: createClient(ReportService, transport),
  };
}

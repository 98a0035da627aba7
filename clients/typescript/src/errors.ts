// What a call can throw: the mirror of the platform's own error tree, told apart by status code and reason.
import { type ServiceError, status } from "@grpc/grpc-js";

const REASON_KEY = "onlinerlhf-reason";
const RETRY_AFTER_KEY = "retry-after";

export interface ErrorDetails {
  code?: status;
  reason?: string;
  retryAfterSeconds?: number | undefined;
  cause?: unknown;
}

/** Base of all. `reason` is a stable machine-readable word; the message never repeats the prompt. */
export class OnlineRLHFError extends Error {
  readonly code: status;
  readonly reason: string;
  /** Set where the gateway says how long to wait. */
  readonly retryAfterSeconds: number | undefined;

  constructor(message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.code = details.code ?? status.UNKNOWN;
    this.reason = details.reason ?? "";
    this.retryAfterSeconds = details.retryAfterSeconds;
  }

  /** Whether the same call, with the same idempotency key, may succeed later. */
  get retryable(): boolean {
    return this.code === status.UNAVAILABLE || this.code === status.DEADLINE_EXCEEDED;
  }
}

/** What was sent can never be accepted. */
export class InvalidInput extends OnlineRLHFError {}
/** No API key, or one that does not count. */
export class Unauthenticated extends OnlineRLHFError {}
/** The API key lacks the scope that this needs. */
export class PermissionDenied extends OnlineRLHFError {}
/** The same thing was accepted before. */
export class AlreadyExists extends OnlineRLHFError {}
/** The idempotency key was used with another request. */
export class IdempotencyConflict extends OnlineRLHFError {}
/** The owner did not allow learning from this prompt; `reason` says what the proof lacks. */
export class ConsentMissing extends OnlineRLHFError {}
/** No such thing. */
export class NotFound extends OnlineRLHFError {}
/** A cap or a bound is reached; worth a retry only where the gateway says how long to wait. */
export class LimitReached extends OnlineRLHFError {
  override get retryable(): boolean {
    return this.retryAfterSeconds !== undefined;
  }
}
/** The platform, or something behind it, is away. */
export class Unavailable extends OnlineRLHFError {}
/** No answer within the deadline. */
export class CallTimeout extends Unavailable {}
/** The platform failed in a way it does not name. */
export class ServerError extends OnlineRLHFError {}

type Kind = typeof OnlineRLHFError;

const BY_CODE = new Map<status, Kind>([
  [status.INVALID_ARGUMENT, InvalidInput],
  [status.OUT_OF_RANGE, InvalidInput],
  [status.UNAUTHENTICATED, Unauthenticated],
  [status.PERMISSION_DENIED, PermissionDenied],
  [status.ALREADY_EXISTS, AlreadyExists],
  [status.NOT_FOUND, NotFound],
  [status.RESOURCE_EXHAUSTED, LimitReached],
  [status.UNAVAILABLE, Unavailable],
  [status.DEADLINE_EXCEEDED, CallTimeout],
]);
const CONSENT_REASONS = [
  "no_consent",
  "production_key",
  "unknown_notice",
  "notice_expired",
  "notice_in_future",
  "withdrawn",
  "erased",
];
// FAILED_PRECONDITION means nothing without its reason; every other code says it all.
const BY_PRECONDITION = new Map<string, Kind>([
  ["idempotency_conflict", IdempotencyConflict],
  ...CONSENT_REASONS.map((reason): [string, Kind] => [reason, ConsentMissing]),
]);

/** The error for a status code and the platform's reason. */
export function fromStatus(message: string, details: ErrorDetails & { code: status }): OnlineRLHFError {
  const { code, reason = "" } = details;
  const table = code === status.FAILED_PRECONDITION ? BY_PRECONDITION.get(reason) : BY_CODE.get(code);
  return new (table ?? ServerError)(message, details);
}

/** The error for a failed call. */
export function fromCall(failed: ServiceError): OnlineRLHFError {
  const told = (key: string) => String(failed.metadata?.get(key).at(-1) ?? "");
  return fromStatus(failed.details || (status[failed.code] ?? "unknown").toLowerCase(), {
    code: failed.code,
    reason: told(REASON_KEY),
    retryAfterSeconds: seconds(told(RETRY_AFTER_KEY)),
    cause: failed,
  });
}

// Undefined for what is no length of time: what a proxy made up must not break the client.
function seconds(value: string): number | undefined {
  const parsed = value === "" ? Number.NaN : Number(value);
  return Number.isFinite(parsed) && parsed >= 0 ? parsed : undefined;
}

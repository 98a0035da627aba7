// What goes in and comes out: plain values, no protobuf.

export type Role = "system" | "user" | "assistant";

/** One turn of a conversation. */
export interface Message {
  readonly role: Role;
  readonly text: string;
}

/** The owner of a prompt allows learning from it. */
export interface Consent {
  /** Of the notice that they were shown; one that the gateway knows. */
  readonly noticeVersion: string;
  /** When. Seconds since 1970-01-01 UTC. */
  readonly shownAtSeconds: number;
}

/** The owner read the notice just now. */
export function shownNow(noticeVersion: string): Consent {
  return { noticeVersion, shownAtSeconds: Date.now() / 1000 };
}

/** A text, or the messages of a conversation whose last one is the user's. */
export type Prompt = string | readonly Message[];

export interface CallOptions {
  /** Of the call with all its retries, in place of `timeouts.totalSeconds`. */
  readonly timeoutSeconds?: number;
}

export interface RepeatableOptions extends CallOptions {
  /** 1 to 128 printable ASCII characters. Without it each call makes its own; retries within a call share it. */
  readonly idempotencyKey?: string;
}

export interface SubmitOptions extends RepeatableOptions {
  /** The user within the key's organisation. */
  readonly userId: string;
  readonly consent: Consent;
  /** One of the ten, where the caller knows it. */
  readonly useCase?: string;
}

export interface AnswerOptions extends RepeatableOptions {
  /** The user within the key's organisation. */
  readonly userId: string;
  /** Without it the prompt is answered and not learned from. */
  readonly consent?: Consent;
  /** Without it: the gateway's default. */
  readonly maxTokens?: number;
  /** Without it: 1. */
  readonly temperature?: number;
  /** Without it: 1. */
  readonly topP?: number;
  readonly seed?: number | bigint;
  /** The answer ends before the first of these, at most 4 of them. */
  readonly stop?: readonly string[];
  /** One of the ten, where the caller knows it. */
  readonly useCase?: string;
}

/** A prompt was taken in. Whether it is learned from is not told. */
export interface Receipt {
  /** For feedback and `getSample`. */
  readonly sampleId: string;
  /** An earlier call with the same idempotency key made this sample. */
  readonly replayed: boolean;
  readonly numPromptTokens: number;
}

/** The next piece of an answer; its text may be empty while a character is incomplete. */
export interface Token {
  readonly text: string;
  readonly tokenIds: readonly number[];
  /** One a token, nats. */
  readonly logprobs: readonly number[];
}

/** eos: the policy ended it. length: cut at maxTokens. stop: cut at a stop string. */
export type FinishReason = "eos" | "length" | "stop";

/** `numTokens` consecutive tokens sampled by one policy version. */
export interface VersionSpan {
  readonly version: bigint;
  readonly numTokens: number;
}

/** The end of an answer. */
export interface Completion {
  readonly finishReason: FinishReason;
  readonly versionSpans: readonly VersionSpan[];
  /** The newest policy version that sampled any of the answer. */
  readonly policyVersion: bigint;
  readonly numPromptTokens: number;
  readonly numResponseTokens: number;
}

/** A whole answer. */
export interface Answer {
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly logprobs: readonly number[];
  readonly receipt: Receipt;
  readonly completion: Completion;
}

/** What the gateway tells about a sample. */
export interface Sample {
  readonly sampleId: string;
  /** received; with a key of scope admin also pool, prompts, rollouts, scored, trained or dropped. */
  readonly state: string;
  readonly dropReason: string | undefined;
  readonly trainedVersion: bigint | undefined;
}

/** A judgement was stored. */
export interface FeedbackReceipt {
  readonly feedbackId: string;
  /** An earlier call with the same idempotency key stored it. */
  readonly replayed: boolean;
}

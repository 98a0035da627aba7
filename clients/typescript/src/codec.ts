// Between the client's values and protobuf.
import { randomUUID } from "node:crypto";
import { InvalidInput, ServerError } from "./errors.js";
import * as wire from "./generated/onlinerlhf/v1/gateway.js";
import { FinishReason as WireFinishReason } from "./generated/onlinerlhf/v1/records.js";
import type {
  AnswerOptions,
  Completion,
  FinishReason,
  Prompt,
  Receipt,
  Role,
  Sample,
  SubmitOptions,
  Token,
} from "./types.js";

const ROLES: Record<Role, wire.Role> = {
  system: wire.Role.ROLE_SYSTEM,
  user: wire.Role.ROLE_USER,
  assistant: wire.Role.ROLE_ASSISTANT,
};
const FINISH = new Map<WireFinishReason, FinishReason>([
  [WireFinishReason.FINISH_REASON_EOS, "eos"],
  [WireFinishReason.FINISH_REASON_LENGTH, "length"],
  [WireFinishReason.FINISH_REASON_STOP, "stop"],
]);

/** A fresh key; a retry must use the same one. */
export function newIdempotencyKey(): string {
  return randomUUID();
}

/** UTF-8. A lone surrogate has none, and must not become another text on the way. */
export function toBytes(text: string): Buffer {
  if (!text.isWellFormed()) {
    throw new InvalidInput("the text holds a lone surrogate", { reason: "not_utf8" });
  }
  return Buffer.from(text, "utf8");
}

export function submitRequest(prompt: Prompt, options: SubmitOptions): wire.SubmitPromptRequest {
  return {
    ...promptFields(prompt),
    userId: options.userId,
    idempotencyKey: options.idempotencyKey ?? newIdempotencyKey(),
    consent: options.consent,
    useCase: options.useCase ?? "",
  };
}

export function generateRequest(prompt: Prompt, options: AnswerOptions): wire.GenerateRequest {
  const { maxTokens, seed } = options;
  if (maxTokens !== undefined && !(Number.isInteger(maxTokens) && maxTokens >= 1)) {
    // On the wire 0 is the gateway's default, which is not what was asked for.
    throw new RangeError(`maxTokens is ${maxTokens}; a whole number from 1 on is needed`);
  }
  return {
    ...promptFields(prompt),
    userId: options.userId,
    idempotencyKey: options.idempotencyKey ?? newIdempotencyKey(),
    consent: options.consent,
    useCase: options.useCase ?? "",
    maxTokens: maxTokens ?? 0,
    temperature: options.temperature,
    topP: options.topP,
    seed: seed === undefined ? undefined : uint64(seed),
    stop: [...(options.stop ?? [])],
  };
}

function promptFields(prompt: Prompt): { text: Buffer; messages: wire.Message[] } {
  return typeof prompt === "string"
    ? { text: toBytes(prompt), messages: [] }
    : { text: Buffer.alloc(0), messages: prompt.map(({ role, text }) => ({ role: ROLES[role], text: toBytes(text) })) };
}

function uint64(value: number | bigint): bigint {
  const whole = BigInt(value);
  if (BigInt.asUintN(64, whole) !== whole) {
    throw new RangeError(`the seed is ${value}; a whole number from 0 to 2^64 - 1 is needed`);
  }
  return whole;
}

export function receiptFrom(receipt: wire.Receipt | undefined): Receipt {
  if (receipt === undefined) {
    throw new ServerError("the gateway answered without a receipt");
  }
  return { sampleId: receipt.sampleId, replayed: receipt.replayed, numPromptTokens: receipt.numPromptTokens };
}

export function tokenFrom(token: wire.Token): Token {
  return { text: token.text, tokenIds: token.tokenIds, logprobs: token.logprobs };
}

export function completionFrom(completion: wire.Completion): Completion {
  const finishReason = FINISH.get(completion.finishReason);
  if (finishReason === undefined) {
    throw new ServerError("the answer ended without a finish reason that this client knows");
  }
  const versionSpans = completion.versionSpans.map(({ version, numTokens }) => ({ version, numTokens }));
  return {
    finishReason,
    versionSpans,
    policyVersion: versionSpans.reduce((newest, { version }) => (version > newest ? version : newest), 0n),
    numPromptTokens: completion.numPromptTokens,
    numResponseTokens: completion.numResponseTokens,
  };
}

export function sampleFrom(sample: wire.GetSampleResponse): Sample {
  return {
    sampleId: sample.sampleId,
    state: sample.state,
    dropReason: sample.dropReason || undefined,
    trainedVersion: sample.trainedVersion || undefined,
  };
}

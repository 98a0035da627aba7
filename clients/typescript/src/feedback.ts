// Judgements of answers. Stored for the reward model; only of answers that this key received.
import { newIdempotencyKey, toBytes } from "./codec.js";
import type { SubmitFeedbackRequest } from "./generated/onlinerlhf/v1/gateway.js";
import type { CallOptions, FeedbackReceipt, RepeatableOptions } from "./types.js";

type Judgement = NonNullable<SubmitFeedbackRequest["judgement"]>;
type Send = (request: SubmitFeedbackRequest, options: CallOptions) => Promise<FeedbackReceipt>;

/** Each method tries again in its time, always with the same idempotency key. */
export class Feedback {
  readonly #send: Send;

  constructor(send: Send) {
    this.#send = send;
  }

  /** A thumb up or down. */
  async thumb(sampleId: string, { up, ...options }: RepeatableOptions & { up: boolean }): Promise<FeedbackReceipt> {
    return this.#give({ $case: "thumb", value: { sampleId, up } }, options);
  }

  /** From 0, worst, to 1, best. */
  async score(sampleId: string, value: number, options: RepeatableOptions = {}): Promise<FeedbackReceipt> {
    return this.#give({ $case: "score", value: { sampleId, value } }, options);
  }

  /** What the answer should have been. */
  async correct(sampleId: string, text: string, options: RepeatableOptions = {}): Promise<FeedbackReceipt> {
    return this.#give({ $case: "correction", value: { sampleId, text: toBytes(text) } }, options);
  }

  /** Two to nine answers to one prompt, best first. */
  async rank(sampleIds: readonly string[], options: RepeatableOptions = {}): Promise<FeedbackReceipt> {
    return this.#give({ $case: "ranking", value: { sampleIds: [...sampleIds] } }, options);
  }

  #give(judgement: Judgement, options: RepeatableOptions): Promise<FeedbackReceipt> {
    return this.#send({ idempotencyKey: options.idempotencyKey ?? newIdempotencyKey(), judgement }, options);
  }
}

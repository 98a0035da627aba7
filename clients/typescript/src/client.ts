// The client of the gateway.
import { ChannelCredentials, credentials, Metadata, type ServiceError } from "@grpc/grpc-js";
import { setTimeout as sleep } from "node:timers/promises";
import { generateRequest, receiptFrom, sampleFrom, submitRequest } from "./codec.js";
import { fromCall } from "./errors.js";
import { Feedback } from "./feedback.js";
import { GatewayServiceClient } from "./generated/onlinerlhf/v1/gateway.js";
import { Budget, DEFAULT_TIMEOUTS, type Timeouts } from "./retries.js";
import { TokenStream } from "./stream.js";
import type { Answer, AnswerOptions, CallOptions, Prompt, Receipt, Sample, SubmitOptions } from "./types.js";

// Notice a dead connection within half a minute, and come back soon after a restart of the gateway.
const CHANNEL = {
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.initial_reconnect_backoff_ms": 100,
  "grpc.max_reconnect_backoff_ms": 2_000,
  "grpc.use_local_subchannel_pool": 1,
};

export interface ClientOptions {
  /** Without it: the environment's ONLINERLHF_API_KEY. */
  readonly apiKey?: string;
  /** Without it the key travels readable. */
  readonly tls?: boolean | ChannelCredentials;
  readonly timeouts?: Partial<Timeouts>;
}

interface Call {
  readonly metadata: Metadata;
  readonly options: { deadline: number };
}
type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: { deadline: number },
  callback: (error: ServiceError | null, response: Response) => void,
) => unknown;

/** Talks to a gateway; close it when done. */
export class Client {
  readonly #stub: GatewayServiceClient;
  readonly #timeouts: Timeouts;
  readonly #metadata: Metadata;
  /** Judgements of answers. */
  readonly feedback: Feedback;

  constructor(target: string, { apiKey = process.env["ONLINERLHF_API_KEY"], tls = false, timeouts }: ClientOptions = {}) {
    this.#metadata = metadataOf(apiKey);
    this.#timeouts = { ...DEFAULT_TIMEOUTS, ...timeouts };
    this.#stub = new GatewayServiceClient(target, channelCredentials(tls), CHANNEL);
    this.feedback = new Feedback(async (request, options) => {
      const given = await this.#call(this.#stub.submitFeedback, request, options);
      return { feedbackId: given.feedbackId, replayed: given.replayed };
    });
  }

  /** Offer a prompt as training data. Retried in its time, always with the same idempotency key. */
  async submit(prompt: Prompt, options: SubmitOptions): Promise<Receipt> {
    const response = await this.#call(this.#stub.submitPrompt, submitRequest(prompt, options), options);
    return receiptFrom(response.receipt);
  }

  /** Answer a prompt token by token; with consent it is offered as training data too. */
  generate(prompt: Prompt, options: AnswerOptions): TokenStream {
    const request = generateRequest(prompt, options);
    return new TokenStream((timeoutSeconds) => {
      const call = this.#prepare(timeoutSeconds);
      return this.#stub.generate(request, call.metadata, call.options);
    }, new Budget(this.#timeouts, options.timeoutSeconds));
  }

  /** Answer a prompt, all at once. */
  async answer(prompt: Prompt, options: AnswerOptions): Promise<Answer> {
    return this.generate(prompt, options).whole();
  }

  /** Whether a sample was received; with a key of scope admin, where it is now. */
  async getSample(sampleId: string, options: CallOptions = {}): Promise<Sample> {
    return sampleFrom(await this.#call(this.#stub.getSample, { sampleId }, options));
  }

  /** Learn no more from anything the user sent so far; how many samples on their way that stops. */
  async withdrawConsent(userId: string, options: CallOptions = {}): Promise<number> {
    return (await this.#call(this.#stub.withdrawConsent, { userId }, options)).numDropped;
  }

  /** End the connection. Calls under way end on their own. */
  close(): void {
    this.#stub.close();
  }

  #prepare(timeoutSeconds: number): Call {
    return { metadata: this.#metadata.clone(), options: { deadline: Date.now() + timeoutSeconds * 1000 } };
  }

  async #call<Request, Response>(
    method: Unary<Request, Response>,
    request: Request,
    { timeoutSeconds }: CallOptions,
  ): Promise<Response> {
    const budget = new Budget(this.#timeouts, timeoutSeconds);
    for (;;) {
      const call = this.#prepare(budget.attemptSeconds);
      const [failed, response] = await new Promise<[ServiceError | null, Response]>((resolve) => {
        method.call(this.#stub, request, call.metadata, call.options, (...outcome) => resolve(outcome));
      });
      if (failed === null) {
        return response;
      }
      const error = fromCall(failed);
      const delay = budget.delayAfter(error);
      if (delay === undefined) {
        throw error;
      }
      await sleep(delay * 1000);
    }
  }
}

function metadataOf(apiKey: string | undefined): Metadata {
  const metadata = new Metadata();
  if (apiKey !== undefined) {
    if (!/^[!-~]+$/.test(apiKey)) {
      // The transport would refuse it too, and name it.
      throw new TypeError("the API key is empty or holds a blank, a line break or a character that is not ASCII");
    }
    metadata.set("authorization", `Bearer ${apiKey}`);
  }
  return metadata;
}

function channelCredentials(tls: boolean | ChannelCredentials): ChannelCredentials {
  if (typeof tls === "boolean") {
    return tls ? credentials.createSsl() : credentials.createInsecure();
  }
  return tls;
}

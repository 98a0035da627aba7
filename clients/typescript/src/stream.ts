// An answer while its tokens come.
import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js";
import { setTimeout as sleep } from "node:timers/promises";
import { completionFrom, receiptFrom, tokenFrom } from "./codec.js";
import { fromCall, OnlineRLHFError, ServerError, Unavailable } from "./errors.js";
import type { GenerateResponse } from "./generated/onlinerlhf/v1/gateway.js";
import type { Budget } from "./retries.js";
import type { Answer, Completion, Receipt, Token } from "./types.js";
import { status } from "@grpc/grpc-js";

type Open = (timeoutSeconds: number) => ClientReadableStream<GenerateResponse>;

/** The tokens of an answer, once, as they come. A retry happens only before the first of them. */
export class TokenStream implements AsyncIterable<Token> {
  readonly #open: Open;
  readonly #budget: Budget;
  readonly #tokens: AsyncGenerator<Token, void, undefined>;
  #call: ClientReadableStream<GenerateResponse> | undefined;
  #started = false;
  #receipt: Receipt | undefined;
  #completion: Completion | undefined;

  constructor(open: Open, budget: Budget) {
    this.#open = open;
    this.#budget = budget;
    this.#tokens = this.#run();
  }

  [Symbol.asyncIterator](): AsyncGenerator<Token, void, undefined> {
    return this.#tokens;
  }

  /** The answer's sample id; known with the first token. */
  get receipt(): Receipt {
    if (this.#receipt === undefined) {
      throw new ServerError("the receipt is not known before the first token");
    }
    return this.#receipt;
  }

  /** Finish reason and policy versions; known after the last token. */
  get completion(): Completion {
    if (this.#completion === undefined) {
      throw new ServerError("the completion is not known before the last token");
    }
    return this.#completion;
  }

  /** Stop; the platform stops sampling. Leaving a `for await` early does the same. */
  async close(): Promise<void> {
    this.#call?.cancel();
    await this.#tokens.return();
  }

  /** The answer that all its tokens make. */
  async whole(): Promise<Answer> {
    const tokens: Token[] = [];
    for await (const token of this) {
      tokens.push(token);
    }
    return {
      text: tokens.map(({ text }) => text).join(""),
      tokenIds: tokens.flatMap(({ tokenIds }) => tokenIds),
      logprobs: tokens.flatMap(({ logprobs }) => logprobs),
      receipt: this.receipt,
      completion: this.completion,
    };
  }

  async *#run(): AsyncGenerator<Token, void, undefined> {
    for (;;) {
      try {
        yield* this.#attempt();
        return;
      } catch (error) {
        const delay =
          error instanceof OnlineRLHFError && !this.#started ? this.#budget.delayAfter(error) : undefined;
        if (delay === undefined) {
          throw error;
        }
        await sleep(delay * 1000);
      }
    }
  }

  async *#attempt(): AsyncGenerator<Token, void, undefined> {
    const call = this.#open(this.#budget.remainingSeconds);
    this.#call = call;
    // What comes after nobody reads any more, such as the end of a cancelled call, must not end the process.
    call.on("error", () => {});
    try {
      for await (const response of call as AsyncIterable<GenerateResponse>) {
        const token = this.#take(response);
        if (token !== undefined) {
          yield token;
        }
      }
    } catch (error) {
      throw isServiceError(error) ? fromCall(error) : error;
    } finally {
      call.cancel();
    }
    if (this.#completion === undefined) {
      throw new Unavailable("the answer ended without a completion", { code: status.UNAVAILABLE });
    }
  }

  #take({ event }: GenerateResponse): Token | undefined {
    switch (event?.$case) {
      case "receipt":
        this.#receipt = receiptFrom(event.value);
        return undefined;
      case "completion":
        this.#completion = completionFrom(event.value);
        return undefined;
      case "token":
        this.#started = true;
        return tokenFrom(event.value);
      case undefined:
        throw new ServerError("an event of a kind that this client does not know");
    }
  }
}

export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && typeof error.code === "number" && "details" in error;
}

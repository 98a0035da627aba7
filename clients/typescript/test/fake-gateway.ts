// A scripted gateway on a real socket: what the client must cope with, on demand and in milliseconds.
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  status,
} from "@grpc/grpc-js";
import {
  type GenerateRequest,
  type GenerateResponse,
  type GatewayServiceServer,
  GatewayServiceService,
  type Receipt,
} from "../src/generated/onlinerlhf/v1/gateway.js";
import { FinishReason } from "../src/generated/onlinerlhf/v1/records.js";

export const API_KEY = "orl_fake_0123456789abcdef";

export interface Refusal {
  readonly code: status;
  readonly reason: string;
  readonly retryAfter?: string;
}

export const AWAY: Refusal = { code: status.UNAVAILABLE, reason: "unavailable" };

interface Keyed {
  readonly idempotencyKey?: string;
}

/** Answers "Hi" to everything, after the refusals that `script` holds. */
export class FakeGateway {
  /** What the next calls are refused with. */
  script: Refusal[] = [];
  /** What came, refused or not. */
  readonly requests: unknown[] = [];
  readonly times: number[] = [];
  breaksAfterToken = false;
  /** An answer never comes to its second token. */
  hangs = false;
  numCancelled = 0;
  target = "";
  readonly #server = new Server();
  readonly #samples = new Map<string, string>();

  async start(): Promise<void> {
    const unary =
      <Request, Response>(answer: (request: Request) => Response): handleUnaryCall<Request, Response> =>
      (call, callback) => {
        const refused = this.#enter(call.metadata, call.request);
        callback(refused, refused === null ? answer(call.request) : null);
      };
    const service: GatewayServiceServer = {
      submitPrompt: unary((request) => ({ receipt: this.#receipt(request) })),
      submitPrompts: (call) => call.emit("error", { code: status.UNIMPLEMENTED }),
      generate: this.#generate,
      getSample: unary(({ sampleId }) => ({ sampleId, state: "received", dropReason: "", trainedVersion: 0n })),
      submitFeedback: unary((request) => {
        const { sampleId, replayed } = this.#receipt(request);
        return { feedbackId: sampleId, replayed };
      }),
      withdrawConsent: unary(() => ({ numDropped: 3 })),
    };
    this.#server.addService(GatewayServiceService, service);
    const port = await new Promise<number>((resolve, reject) => {
      this.#server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error),
      );
    });
    this.target = `127.0.0.1:${port}`;
  }

  stop(): void {
    this.#server.forceShutdown();
  }

  readonly #generate: handleServerStreamingCall<GenerateRequest, GenerateResponse> = (call) => {
    const refused = this.#enter(call.metadata, call.request);
    if (refused !== null) {
      call.emit("error", refused);
      return;
    }
    call.on("cancelled", () => {
      this.numCancelled += 1;
    });
    call.write({ event: { $case: "receipt", value: this.#receipt(call.request) } });
    call.write({ event: { $case: "token", value: { text: "H", tokenIds: [72], logprobs: [-0.5] } } });
    if (this.breaksAfterToken) {
      call.emit("error", { code: status.UNAVAILABLE, details: "the engine died" });
    } else if (!this.hangs) {
      call.write({ event: { $case: "token", value: { text: "i", tokenIds: [105], logprobs: [-0.25] } } });
      const completion = {
        finishReason: FinishReason.FINISH_REASON_STOP,
        versionSpans: [
          { version: 3n, numTokens: 1 },
          { version: 4n, numTokens: 1 },
        ],
        numPromptTokens: 5,
        numResponseTokens: 2,
      };
      call.write({ event: { $case: "completion", value: completion } });
      call.end();
    }
  };

  #enter(metadata: Metadata, request: unknown): { code: status; details: string; metadata: Metadata } | null {
    this.requests.push(request);
    this.times.push(performance.now() / 1000);
    const known = metadata.get("authorization").at(0) === `Bearer ${API_KEY}`;
    const refusal = known ? this.script.shift() : { code: status.UNAUTHENTICATED, reason: "unauthenticated" };
    if (refusal === undefined) {
      return null;
    }
    const trailing = new Metadata();
    trailing.set("onlinerlhf-reason", refusal.reason);
    if ("retryAfter" in refusal && refusal.retryAfter !== undefined) {
      trailing.set("retry-after", refusal.retryAfter);
    }
    return { code: refusal.code, details: "no", metadata: trailing };
  }

  #receipt({ idempotencyKey = "" }: Keyed): Receipt {
    const earlier = this.#samples.get(idempotencyKey);
    const sampleId = earlier ?? `sample-${this.#samples.size}`;
    this.#samples.set(idempotencyKey, sampleId);
    return { sampleId, replayed: earlier !== undefined, numPromptTokens: 5 };
  }
}

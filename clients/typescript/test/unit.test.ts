// The client against a scripted gateway on a real socket.
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import { status } from "@grpc/grpc-js";
import {
  CallTimeout,
  Client,
  ConsentMissing,
  IdempotencyConflict,
  InvalidInput,
  LimitReached,
  ServerError,
  shownNow,
  Unauthenticated,
  Unavailable,
} from "../src/index.js";
import { fromStatus } from "../src/errors.js";
import type { GenerateRequest, SubmitPromptRequest } from "../src/generated/onlinerlhf/v1/gateway.js";
import { Role } from "../src/generated/onlinerlhf/v1/gateway.js";
import { Budget } from "../src/retries.js";
import { API_KEY, AWAY, FakeGateway } from "./fake-gateway.js";

const CONSENT = { noticeVersion: "1", shownAtSeconds: 1_700_000_000 };
const ADA = { userId: "ada", consent: CONSENT };

let gateway: FakeGateway;
let client: Client;

beforeEach(async () => {
  gateway = new FakeGateway();
  await gateway.start();
  const timeouts = { totalSeconds: 5, firstDelaySeconds: 0.01, maxDelaySeconds: 0.05 };
  client = new Client(gateway.target, { apiKey: API_KEY, timeouts });
});

afterEach(() => {
  client.close();
  gateway.stop();
});

function keys(): Set<string> {
  return new Set(gateway.requests.map((request) => (request as SubmitPromptRequest).idempotencyKey));
}

describe("retries", () => {
  test("a lost call is tried again with the same idempotency key", async () => {
    gateway.script = [AWAY, AWAY];
    assert.equal((await client.submit("a", ADA)).sampleId, "sample-0");
    assert.equal(gateway.requests.length, 3);
    assert.equal(keys().size, 1);
  });

  test("a limit is waited for as long as the gateway says", async () => {
    gateway.script = [{ code: status.RESOURCE_EXHAUSTED, reason: "limit_reached", retryAfter: "0.300" }];
    await client.submit("a", ADA);
    const [first = 0, second = 0] = gateway.times;
    assert.ok(second - first >= 0.299, `${second - first} s`);
  });

  test("a limit that outlasts the call is thrown at once", async () => {
    gateway.script = [{ code: status.RESOURCE_EXHAUSTED, reason: "limit_reached", retryAfter: "60" }];
    await assert.rejects(client.answer("a", ADA), (error: unknown) => {
      assert.ok(error instanceof LimitReached);
      assert.equal(error.retryAfterSeconds, 60);
      return true;
    });
    assert.equal(gateway.requests.length, 1);
  });

  test("a cap without an end is thrown at once", async () => {
    gateway.script = [{ code: status.RESOURCE_EXHAUSTED, reason: "pool_full" }];
    await assert.rejects(client.submit("a", ADA), { name: "LimitReached", reason: "pool_full" });
    assert.equal(gateway.requests.length, 1);
  });

  test("what is no length of time is not waited for", async () => {
    for (const retryAfter of ["soon", "-1", "NaN", "Infinity"]) {
      gateway.script = [{ code: status.RESOURCE_EXHAUSTED, reason: "limit_reached", retryAfter }];
      await assert.rejects(client.submit("a", ADA), { name: "LimitReached", retryAfterSeconds: undefined });
    }
  });

  test("an answer is tried again before its first token", async () => {
    gateway.script = [AWAY];
    assert.equal((await client.answer("a", ADA)).text, "Hi");
    assert.equal(keys().size, 1);
  });

  test("an answer that breaks off is not tried again", async () => {
    gateway.breaksAfterToken = true;
    await assert.rejects(client.answer("a", ADA), Unavailable);
    assert.equal(gateway.requests.length, 1);
  });

  test("with nobody there the client gives up in time", async () => {
    const alone = new Client("127.0.0.1:1", { apiKey: API_KEY, timeouts: { totalSeconds: 0.5 } });
    const began = performance.now();
    await assert.rejects(alone.getSample("s"), Unavailable);
    assert.ok(performance.now() - began < 3000);
    alone.close();
  });

  test("delays double up to the longest, and half of one is chance", () => {
    const away = fromStatus("away", { code: status.UNAVAILABLE });
    const timeouts = { totalSeconds: 10, attemptSeconds: 4, firstDelaySeconds: 0.1, maxDelaySeconds: 1 };
    const longest = new Budget(timeouts, 10, () => 100, () => 1);
    assert.deepEqual([1, 2, 3, 4, 5, 6].map(() => longest.delayAfter(away)), [0.1, 0.2, 0.4, 0.8, 1, 1]);
    const shortest = new Budget(timeouts, 10, () => 100, () => 0);
    assert.deepEqual([1, 2, 3].map(() => shortest.delayAfter(away)), [0.05, 0.1, 0.2]);
  });

  test("what the gateway asks for comes on top of the delay", () => {
    const timeouts = { totalSeconds: 10, attemptSeconds: 4, firstDelaySeconds: 0.25, maxDelaySeconds: 1 };
    const budget = new Budget(timeouts, 10, () => 100, () => 1);
    const limited = (retryAfterSeconds: number) =>
      fromStatus("no", { code: status.RESOURCE_EXHAUSTED, retryAfterSeconds });
    assert.equal(budget.delayAfter(limited(3)), 3.25);
    assert.equal(budget.delayAfter(limited(10)), undefined);
  });
});

describe("answers", () => {
  test("come token by token, with the receipt first and the completion last", async () => {
    const stream = client.generate("a", ADA);
    assert.throws(() => stream.receipt, ServerError);
    const texts: string[] = [];
    for await (const token of stream) {
      assert.equal(stream.receipt.sampleId, "sample-0");
      texts.push(token.text);
    }
    assert.deepEqual(texts, ["H", "i"]);
    assert.equal(stream.completion.finishReason, "stop");
    assert.equal(stream.completion.policyVersion, 4n);
  });

  test("come whole", async () => {
    const answer = await client.answer("a", ADA);
    assert.deepEqual([answer.text, answer.tokenIds, answer.logprobs], ["Hi", [72, 105], [-0.5, -0.25]]);
    assert.equal(answer.receipt.numPromptTokens, 5);
  });

  test("stop when the reader leaves", async () => {
    gateway.hangs = true;
    for await (const _ of client.generate("a", ADA)) {
      break;
    }
    for (let waited = 0; gateway.numCancelled === 0 && waited < 100; waited += 1) {
      await sleep(20);
    }
    assert.equal(gateway.numCancelled, 1);
  });

  test("that never end run into the deadline", async () => {
    gateway.hangs = true;
    await assert.rejects(client.answer("a", { ...ADA, timeoutSeconds: 0.2 }), CallTimeout);
  });

  test("carry only the settings that were given", async () => {
    await client.answer("a", { userId: "ada" });
    const settings = { maxTokens: 5, temperature: 0, topP: 0.5, seed: 2n ** 64n - 1n, stop: ["x"] };
    await client.answer([{ role: "system", text: "be brief" }, { role: "user", text: "zoë" }], { ...ADA, ...settings });
    const [plain, full] = gateway.requests as GenerateRequest[];
    assert.deepEqual(
      [plain?.temperature, plain?.topP, plain?.seed, plain?.maxTokens, plain?.consent],
      [undefined, undefined, undefined, 0, undefined],
    );
    assert.deepEqual([full?.temperature, full?.topP, full?.seed, full?.maxTokens], [0, 0.5, 2n ** 64n - 1n, 5]);
    assert.deepEqual(full?.consent, CONSENT);
    assert.deepEqual(
      full?.messages.map(({ role, text }) => [role, text.toString()]),
      [
        [Role.ROLE_SYSTEM, "be brief"],
        [Role.ROLE_USER, "zoë"],
      ],
    );
  });

  test("are not asked for with settings that cannot be sent as they are", () => {
    assert.throws(() => client.generate("a", { userId: "ada", maxTokens: 0 }), RangeError);
    assert.throws(() => client.generate("a", { userId: "ada", maxTokens: 1.5 }), RangeError);
    assert.throws(() => client.generate("a", { userId: "ada", seed: -1 }), RangeError);
    assert.throws(() => client.generate("a", { userId: "ada", seed: 0.5 }), RangeError);
    assert.throws(() => client.generate("\ud800", { userId: "ada" }), InvalidInput);
  });
});

describe("keys", () => {
  test("that are wrong are refused by type", async () => {
    const stranger = new Client(gateway.target, { apiKey: "orl_wrong_key" });
    await assert.rejects(stranger.answer("a", ADA), Unauthenticated);
    await assert.rejects(stranger.getSample("s"), (error: unknown) => {
      assert.ok(error instanceof Unauthenticated);
      assert.equal(error.reason, "unauthenticated");
      assert.ok(!inspect(error, { depth: 20, showHidden: true }).includes("orl_wrong_key"));
      return true;
    });
    stranger.close();
  });

  test("that no header can hold are refused and not repeated", () => {
    for (const apiKey of ["", "two words", "line\nbreak", "zoë", "nul\0"]) {
      assert.throws(
        () => new Client(gateway.target, { apiKey }),
        (error: Error) => error instanceof TypeError && (apiKey === "" || !error.message.includes(apiKey)),
      );
    }
  });

  test("come from the environment where none is given", async () => {
    process.env["ONLINERLHF_API_KEY"] = API_KEY;
    try {
      const other = new Client(gateway.target);
      assert.equal((await other.getSample("s")).state, "received");
      other.close();
    } finally {
      delete process.env["ONLINERLHF_API_KEY"];
    }
  });

  test("are not shown by the client", () => {
    assert.ok(!inspect(client, { depth: 20, showHidden: true }).includes(API_KEY));
    assert.ok(!JSON.stringify(client).includes(API_KEY));
  });
});

describe("feedback and consent", () => {
  test("each judgement goes out as its own kind, under its own key", async () => {
    await client.feedback.thumb("s", { up: false });
    await client.feedback.score("s", 0.75);
    await client.feedback.correct("s", "zoë");
    await client.feedback.rank(["best", "worst"], { idempotencyKey: "mine" });
    assert.deepEqual(
      gateway.requests.map((request) => (request as { judgement: { $case: string } }).judgement.$case),
      ["thumb", "score", "correction", "ranking"],
    );
    assert.equal(keys().size, 4);
    assert.ok(keys().has("mine"));
  });

  test("a judgement that got lost is given again under its key", async () => {
    gateway.script = [AWAY];
    await client.feedback.thumb("s", { up: true });
    assert.equal(gateway.requests.length, 2);
    assert.equal(keys().size, 1);
    const again = await client.feedback.thumb("s", { up: true, idempotencyKey: [...keys()][0] ?? "" });
    assert.ok(again.replayed);
  });

  test("consent is withdrawn", async () => {
    assert.equal(await client.withdrawConsent("ada"), 3);
  });

  test("consent is stamped with the time at which the notice was shown", () => {
    const { noticeVersion, shownAtSeconds } = shownNow("2");
    assert.equal(noticeVersion, "2");
    assert.ok(Math.abs(shownAtSeconds - Date.now() / 1000) < 5);
  });

  test("a precondition that failed says which", () => {
    const code = status.FAILED_PRECONDITION;
    assert.ok(fromStatus("no", { code, reason: "notice_expired" }) instanceof ConsentMissing);
    assert.ok(fromStatus("no", { code, reason: "idempotency_conflict" }) instanceof IdempotencyConflict);
    assert.ok(fromStatus("no", { code, reason: "something_later" }) instanceof ServerError);
  });
});

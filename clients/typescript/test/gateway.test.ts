// The client against a running gateway, which the environment names:
//   ONLINERLHF_TARGET           host:port
//   ONLINERLHF_API_KEY          a playground key with the scopes generate and feedback
//   ONLINERLHF_LIMITED_API_KEY  one that may make a burst of at most 400 requests, and then few a second
//   ONLINERLHF_NOTICE           a version of the consent notice that the gateway knows
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after, before, describe, test } from "node:test";
import {
  CallTimeout,
  Client,
  ConsentMissing,
  IdempotencyConflict,
  InvalidInput,
  LimitReached,
  NotFound,
  shownNow,
  Unauthenticated,
} from "../src/index.js";

const target = process.env["ONLINERLHF_TARGET"];
const notice = process.env["ONLINERLHF_NOTICE"] ?? "1";
const skip = target === undefined && "ONLINERLHF_TARGET names no gateway";

describe("a running gateway", { skip }, () => {
  let client: Client;
  const ada = () => ({ userId: "ada", consent: shownNow(notice) });

  before(() => {
    client = new Client(target ?? "");
  });

  after(() => client.close());

  test("takes a prompt in, and the same one only once", async () => {
    const options = { ...ada(), idempotencyKey: randomUUID() };
    const first = await client.submit("name three foods.", options);
    assert.match(first.sampleId, /^\S+$/);
    assert.ok(!first.replayed);
    assert.ok(first.numPromptTokens > 0);
    const again = await client.submit("name three foods.", options);
    assert.deepEqual([again.sampleId, again.replayed], [first.sampleId, true]);
    assert.equal((await client.getSample(first.sampleId)).sampleId, first.sampleId);
  });

  test("answers token by token", async () => {
    const stream = client.generate("say hi", { ...ada(), maxTokens: 8 });
    let text = "";
    let numTokens = 0;
    for await (const token of stream) {
      assert.notEqual(stream.receipt.sampleId, "");
      assert.equal(token.logprobs.length, token.tokenIds.length);
      numTokens += token.tokenIds.length;
      text += token.text;
    }
    assert.notEqual(text, "");
    assert.equal(stream.completion.numResponseTokens, numTokens);
    assert.equal(
      stream.completion.versionSpans.reduce((sum, span) => sum + span.numTokens, 0),
      numTokens,
    );
  });

  test("answers a conversation", async () => {
    const turns = [
      { role: "system", text: "be brief" },
      { role: "user", text: "say hi" },
    ] as const;
    const answer = await client.answer(turns, { userId: "ada", temperature: 0, seed: 1 });
    assert.notEqual(answer.text, "");
  });

  test("refuses what it never takes, by type and reason", async () => {
    await assert.rejects(client.submit("", ada()), (error: unknown) => {
      assert.ok(error instanceof InvalidInput);
      assert.equal(error.reason, "empty");
      return true;
    });
    await assert.rejects(client.answer("a", { userId: "ada", temperature: -1 }), InvalidInput);
    await assert.rejects(client.getSample(randomUUID()), NotFound);
  });

  test("refuses consent that does not count", async () => {
    const expired = { noticeVersion: notice, shownAtSeconds: Date.now() / 1000 - 365 * 86_400 };
    await assert.rejects(client.submit("a prompt", { userId: "ada", consent: expired }), (error: unknown) => {
      assert.ok(error instanceof ConsentMissing);
      assert.equal(error.reason, "notice_expired");
      return true;
    });
    const unknown = shownNow("no such notice");
    await assert.rejects(client.submit("a prompt", { userId: "ada", consent: unknown }), ConsentMissing);
  });

  test("refuses another prompt under the same idempotency key", async () => {
    const options = { ...ada(), idempotencyKey: randomUUID() };
    await client.submit("one prompt", options);
    await assert.rejects(client.submit("another prompt", options), IdempotencyConflict);
  });

  test("refuses a key that it does not know, and a call without one", async () => {
    const key = process.env["ONLINERLHF_API_KEY"] ?? "";
    const wrong = key.slice(0, -1) + (key.endsWith("0") ? "1" : "0");
    const stranger = new Client(target ?? "", { apiKey: wrong });
    await assert.rejects(stranger.answer("a", { userId: "ada" }), Unauthenticated);
    await assert.rejects(stranger.submit("a", ada()), (error: unknown) => {
      assert.ok(error instanceof Unauthenticated);
      assert.ok(!error.message.includes(wrong));
      return true;
    });
    stranger.close();
  });

  test("keeps judgements of answers that this key received, once for each idempotency key", async () => {
    const { sampleId } = (await client.answer("say hi", { userId: "ada" })).receipt;
    const idempotencyKey = randomUUID();
    const given = await client.feedback.thumb(sampleId, { up: true, idempotencyKey });
    const again = await client.feedback.thumb(sampleId, { up: true, idempotencyKey });
    assert.deepEqual([given.replayed, again.replayed], [false, true]);
    assert.equal(again.feedbackId, given.feedbackId);
    assert.notEqual((await client.feedback.score(sampleId, 0.75)).feedbackId, given.feedbackId);
    await client.feedback.correct(sampleId, "hello");
  });

  test("refuses judgements of anything else, and scores that there are not", async () => {
    await assert.rejects(client.feedback.thumb(randomUUID(), { up: true }), NotFound);
    const { receipt } = await client.answer("say hi", { userId: "ada" });
    await assert.rejects(client.feedback.score(receipt.sampleId, 1.5), InvalidInput);
    await assert.rejects(client.feedback.rank([receipt.sampleId]), InvalidInput);
  });

  test("lets the deadline of a call hold", async () => {
    const began = performance.now();
    await assert.rejects(client.answer("say hi", { userId: "ada", timeoutSeconds: 0.001 }), CallTimeout);
    assert.ok(performance.now() - began < 2000);
  });

  test("says when to come back, and the client comes back then", async () => {
    const apiKey = process.env["ONLINERLHF_LIMITED_API_KEY"] ?? "";
    const limited = new Client(target ?? "", { apiKey, timeouts: { totalSeconds: 20 } });
    const ask = (who: Client, timeoutSeconds?: number) =>
      who.submit("name a colour.", { ...ada(), ...(timeoutSeconds === undefined ? {} : { timeoutSeconds }) });
    // More than the burst, until one is refused: its wait does not fit into what is left of 0.2 s.
    let limit: LimitReached | undefined;
    for (let tries = 0; tries < 500 && limit === undefined; tries += 1) {
      await ask(limited, 0.2).catch((error: unknown) => {
        if (!(error instanceof LimitReached)) {
          throw error;
        }
        limit = error;
      });
    }
    assert.ok(limit?.retryAfterSeconds !== undefined && limit.retryAfterSeconds > 0);
    const began = performance.now();
    await ask(limited);
    assert.ok((performance.now() - began) / 1000 >= Math.min(limit.retryAfterSeconds, 0.05));
    limited.close();
  });

  test("forgets consent from now on", async () => {
    const user = { userId: "grace", consent: shownNow(notice) };
    await client.submit("name a flower.", user);
    assert.ok((await client.withdrawConsent("grace")) >= 0);
    await assert.rejects(client.submit("name a tree.", user), (error: unknown) => {
      assert.ok(error instanceof ConsentMissing);
      assert.equal(error.reason, "withdrawn");
      return true;
    });
  });
});

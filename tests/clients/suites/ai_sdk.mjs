// The AI SDK, in the version that CLIENT names, by each of its three ways to an OpenAI-compatible endpoint.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { z } from "zod";
import { BROKEN, LONG, WORDS, collect, refused } from "./common.mjs";

const { CLIENT, OPENAI_BASE_URL: baseURL, OPENAI_API_KEY: apiKey } = process.env;
const ai = await import(CLIENT);
const { createOpenAI } = await import(`${CLIENT}-openai`);
const { createOpenAICompatible } = await import(`${CLIENT}-openai-compatible`);
const { APICallError, Output, embed, embedMany, generateText, streamText, tool } = ai;
const steps = ai.isStepCount ?? ai.stepCountIs;

const stateless = { providerOptions: { openai: { store: false } } };
const City = z.object({ name: z.string().max(12), people: z.number().int().max(999) });
const tools = {
  weather: tool({ inputSchema: z.object({ place: z.string() }), execute: ({ place }) => `sunny, ${place}` }),
  clock: tool({ inputSchema: z.object({ place: z.string() }), execute: () => "noon" }),
};
const quiet = { onError() {} };
const plan = { prompt: "weather and clock", tools, stopWhen: steps(3) };

const openai = createOpenAI();
const compatible = createOpenAICompatible({
  name: "ryvion",
  baseURL,
  apiKey,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
/** Each way, as a function of a model's name. */
const WAYS = { responses: openai, chat: openai.chat, compatible };

for (const [way, model] of Object.entries(WAYS)) {
  describe(`${CLIENT} by ${way}`, { concurrency: 4 }, () => {
    it("reads texts, whole and streamed, with usage", async () => {
      const whole = await generateText({ model: model("mock-echo"), prompt: WORDS });
      assert.deepEqual([whole.text, whole.finishReason, whole.usage.outputTokens], [WORDS, "stop", 9]);
      const stream = streamText({ model: model("mock-echo"), prompt: WORDS });
      assert.ok((await collect(stream.textStream)).length > 3);
      assert.deepEqual([await stream.text, (await stream.usage).outputTokens], [WORDS, 9]);
    });

    it("calls tools in parallel and goes on with their results", async () => {
      const { text, steps: taken } = await generateText({ model: model("mock-tools"), ...plan });
      assert.deepEqual(taken.map((step) => step.toolCalls.map((call) => call.toolName)), [["weather", "clock"], []]);
      assert.equal(taken[0].toolResults[0].output, "sunny, weather and clock");
      assert.match(text, /noon/);
      const stream = streamText({ model: model("mock-tools"), ...plan });
      assert.match(await stream.text, /noon/);
      assert.equal((await stream.steps).length, 2);
    });

    it("gives objects that follow their schema", async () => {
      const asked = { model: model("ryvion-tiny"), prompt: "Paris?", output: Output.object({ schema: City }), temperature: 0 };
      assert.ok(City.safeParse((await generateText(asked)).output).success);
      const older = { model: model("ryvion-tiny"), prompt: "Paris?", schema: City, temperature: 0 };
      assert.ok(City.safeParse((await ai.generateObject(older)).object).success);
      const stream = streamText(asked);
      assert.ok(City.safeParse((await collect(stream.partialOutputStream)).at(-1)).success);
    });

    it("tells that an answer broke", async () => {
      const reading = ["mock-midstream-error", "mock-drop"].map(async (broken) => {
        const parts = await collect(streamText({ model: model(broken), prompt: WORDS, ...quiet }).fullStream);
        const heard = parts.filter(({ type }) => type === "text-delta").map(({ text }) => text).join("");
        assert.ok(heard.startsWith("one two three") && BROKEN.startsWith(heard), heard);
        assert.ok(parts.some(({ type, error }) => type === "error" && error.code === "node_failed"));
        assert.equal(parts.at(-1).finishReason, "error");
      });
      await Promise.all(reading);
    });

    it("raises refusals", async () => {
      const unknown = generateText({ model: model("x"), prompt: WORDS });
      await refused(unknown, APICallError.isInstance, { statusCode: 404, isRetryable: false });
      const full = generateText({ model: model("mock-503"), prompt: WORDS, maxRetries: 0 });
      await refused(full, APICallError.isInstance, { statusCode: 503, isRetryable: true });
    });

    it("shows where the answer's receipt is", async () => {
      const { response } = await generateText({ model: model("mock-echo"), prompt: WORDS });
      assert.match(response.headers["x-ryvion-receipt-cid"], /^ryv1:sha256:/);
    });

    it("leaves in the middle of an answer", async () => {
      const leaving = new AbortController();
      const asked = { model: model("mock-echo"), prompt: LONG, abortSignal: leaving.signal };
      const types = [];
      for await (const { type } of streamText({ ...asked, ...quiet }).fullStream) {
        types.push(type);
        if (type === "text-delta") leaving.abort();
      }
      assert.equal(types.at(-1), "abort");
      await assert.rejects(generateText({ ...asked, abortSignal: AbortSignal.timeout(200) }));
    });
  });
}

describe(`${CLIENT} in a conversation`, { concurrency: 4 }, () => {
  /** A second turn, which takes up what was said and called in the first. */
  async function talk(model, more = {}) {
    const messages = [{ role: "user", content: "weather and clock" }];
    const first = await generateText({ model, tools, stopWhen: steps(3), messages, ...more });
    messages.push(...first.response.messages, { role: "user", content: "And tomorrow?" });
    return generateText({ model, messages, ...more });
  }

  it("is refused, with the mend, where it refers to what was said", async () => {
    await assert.rejects(talk(openai("mock-tools")), /answers are not stored here; send the item itself.*`store` false/);
  });

  it("goes on when told that nothing is stored", async () => {
    assert.equal((await talk(openai("mock-tools"), stateless)).text, "And tomorrow?");
    const middleware = ai.defaultSettingsMiddleware({ settings: stateless });
    const model = ai.wrapLanguageModel({ model: openai("mock-tools"), middleware });
    assert.equal((await talk(model)).text, "And tomorrow?");
  });

  it("goes on by the other ways", async () => {
    assert.equal((await talk(openai.chat("mock-tools"))).text, "And tomorrow?");
    assert.equal((await talk(compatible("mock-tools"))).text, "And tomorrow?");
  });
});

describe(`${CLIENT} and preferences`, () => {
  it("sends them by the compatible provider, under its name", async () => {
    const asked = { model: compatible("mock-echo"), prompt: WORDS };
    const here = { jurisdiction: "EU", ryvion: { sort: "price" } };
    assert.equal((await generateText({ ...asked, providerOptions: { ryvion: here } })).text, WORDS);
    const elsewhere = generateText({ ...asked, providerOptions: { ryvion: { jurisdiction: "JP" } } });
    await refused(elsewhere, APICallError.isInstance, { statusCode: 403 });
  });
});

describe(`${CLIENT}'s embeddings`, () => {
  it("come one by one and many at once", async () => {
    const values = ["salt", "soup"];
    const { embeddings, usage } = await embedMany({ model: openai.embedding("ryvion-embed-tiny"), values });
    assert.deepEqual(embeddings.map((embedding) => embedding.length), [160, 160]);
    assert.ok(usage.tokens > 0);
    const one = await embed({ model: compatible.embeddingModel("ryvion-embed-tiny"), value: "salt" });
    assert.deepEqual(one.embedding, embeddings[0]);
  });
});

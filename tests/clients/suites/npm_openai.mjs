// The npm package openai, in the version that CLIENT names, does what it does elsewhere.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, it } from "node:test";
import { z } from "zod";
import { BROKEN, LONG, READ_ONLY_KEY, WORDS, collect, refused, watched } from "./common.mjs";

const { default: OpenAI } = await import(process.env.CLIENT);
const { zodFunction, zodResponseFormat, zodTextFormat } = await import(`${process.env.CLIENT}/helpers/zod`);

const client = new OpenAI();
const chats = client.chat.completions;
const chat = (model, said = WORDS) => ({ model, messages: [{ role: "user", content: said }] });
const City = z.object({ name: z.string().max(12), people: z.number().int().max(999) });
const tool = (name) => ({
  type: "function",
  function: { name, parameters: { type: "object", properties: { place: { type: "string" } } } },
});
const tools = [tool("weather"), tool("clock")];
const a = (kind) => (error) => error instanceof kind;
const text = (chunks) => chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");

describe(process.env.CLIENT, { concurrency: 4 }, () => {
  it("reads a whole chat, with its headers and what is ours", async () => {
    const { data, response } = await chats.create(chat("mock-echo")).withResponse();
    assert.equal(data.choices[0].message.content, WORDS);
    assert.equal(data.choices[0].finish_reason, "stop");
    assert.equal(data.usage.completion_tokens, WORDS.split(/ +/).length);
    assert.equal(data.ryvion.accepted, true);
    assert.equal(data.ryvion.job_id, response.headers.get("x-ryvion-job-id"));
    assert.match(data._request_id, /^req_/);
  });

  it("reads a stream, with usage in one chunk", async () => {
    const asked = { ...chat("mock-echo"), stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await chats.create(asked));
    assert.equal(text(chunks), WORDS);
    assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
    assert.equal(chunks.at(-2).ryvion.accepted, true);
    assert.deepEqual(chunks.filter((chunk) => chunk.usage).map((chunk) => chunk.choices), [[]]);
  });

  it("reads several choices, whole and streamed", async () => {
    const asked = { ...chat("mock-echo"), n: 2 };
    const { choices } = await chats.create(asked);
    assert.deepEqual(choices.map(({ index, message }) => [index, message.content]), [[0, WORDS], [1, WORDS]]);
    const chunks = await collect(await chats.create({ ...asked, stream: true, stream_options: { include_usage: true } }));
    for (const wanted of [0, 1]) {
      assert.equal(text(chunks.filter(({ choices: [one] }) => one?.index === wanted)), WORDS);
    }
    assert.deepEqual(chunks.filter((chunk) => chunk.usage).map((chunk) => chunk.usage.completion_tokens), [18]);
    const gathered = await chats.stream(asked).finalChatCompletion();
    assert.deepEqual(gathered.choices.map(({ message }) => message.content), [WORDS, WORDS]);
  });

  it("gathers a stream with its helper", async () => {
    const stream = chats.stream(chat("mock-echo"));
    let heard = "";
    stream.on("content", (delta) => (heard += delta));
    const whole = await stream.finalChatCompletion();
    assert.deepEqual([heard, whole.choices[0].message.content], [WORDS, WORDS]);
  });

  it("waits for a model that is slow to start", async () => {
    assert.equal(text(await collect(await chats.create({ ...chat("mock-slow-start"), stream: true }))), WORDS);
  });

  it("reads parallel calls, whole and streamed, and gives their results back", async () => {
    const said = `weather and clock${", please".repeat(99)}`; // enough for several pieces
    const asked = { ...chat("mock-tools", said), tools };
    const { message, finish_reason: reason } = (await chats.create(asked)).choices[0];
    assert.equal(reason, "tool_calls");
    assert.deepEqual(message.tool_calls.map((call) => call.function.name), ["weather", "clock"]);
    assert.deepEqual(JSON.parse(message.tool_calls[1].function.arguments), { place: said });

    const chunks = await collect(await chats.create({ ...asked, stream: true }));
    const deltas = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
    for (const [index, call] of message.tool_calls.entries()) {
      const [first, ...rest] = deltas.filter((delta) => delta.index === index);
      assert.deepEqual([first.id, first.type, first.function.name], [call.id, "function", call.function.name]);
      const pieces = [first, ...rest].map((delta) => delta.function.arguments);
      assert.ok(pieces.length > 1);
      assert.equal(pieces.join(""), call.function.arguments);
    }

    const results = message.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "noon" }));
    const told = await chats.create({ ...asked, messages: [...asked.messages, message, ...results] });
    assert.equal(told.choices[0].message.content, "noon");
  });

  it("runs tools by itself", async () => {
    const asked = [];
    const parameters = z.object({ place: z.string() });
    const ours = zodFunction({ name: "weather", parameters, function: ({ place }) => (asked.push(place), "sunny") });
    const runner = chats.runTools({ ...chat("mock-tools", "Lyon"), tools: [ours], stream: true });
    assert.equal(await runner.finalContent(), "sunny");
    assert.deepEqual(asked, ["Lyon"]);
  });

  it("parses what a grammar held to a schema", async () => {
    const wanted = { ...chat("ryvion-tiny", "Paris?"), response_format: zodResponseFormat(City, "city"), seed: 1 };
    assert.ok(City.safeParse((await chats.parse(wanted)).choices[0].message.parsed).success);
    const format = zodTextFormat(City, "city");
    const response = await client.responses.parse({ model: "ryvion-tiny", input: "Paris?", text: { format } });
    assert.ok(City.safeParse(response.output_parsed).success);
  });

  it("reads responses, whole and streamed", async () => {
    const asked = { model: "mock-echo", input: WORDS };
    const whole = await client.responses.create(asked);
    assert.deepEqual([whole.output_text, whole.status, whole.ryvion.accepted], [WORDS, "completed", true]);
    const events = await collect(await client.responses.create({ ...asked, stream: true }));
    assert.deepEqual([events[0].type, events.at(-1).type], ["response.created", "response.completed"]);
    assert.equal((await client.responses.stream(asked).finalResponse()).output_text, WORDS);
  });

  it("reads text completions", async () => {
    const asked = { model: "ryvion-tiny", prompt: "The capital of France is", max_tokens: 4, seed: 1 };
    const whole = (await client.completions.create(asked)).choices[0];
    const chunks = await collect(await client.completions.create({ ...asked, stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), whole.text);
  });

  it("reads embeddings, in base64 as it asks by itself and as numbers", async () => {
    const asked = { model: "ryvion-embed-tiny", input: ["salt", "soup"] };
    const [packed, plain] = await Promise.all([
      client.embeddings.create(asked),
      client.embeddings.create({ ...asked, encoding_format: "float" }),
    ]);
    assert.deepEqual(packed.data.map(({ embedding }) => embedding.length), [160, 160]);
    for (const { embedding, index } of packed.data) {
      assert.deepEqual(embedding, plain.data[index].embedding.map(Math.fround));
    }
  });

  it("lists models", async () => {
    const ids = (await collect(client.models.list())).map((model) => model.id);
    assert.ok(ids.includes("mock-echo") && ids.includes("ryvion-tiny"));
    assert.equal((await client.models.retrieve("ryvion-tiny")).object, "model");
  });

  it("raises the errors that it raises elsewhere", async () => {
    const unknown = { status: 404, code: "model_not_found", param: "model", type: "invalid_request_error" };
    await refused(chats.create(chat("x")), a(OpenAI.NotFoundError), unknown);
    const silent = { ...chat("mock-echo"), audio: { voice: "x", format: "wav" } };
    await refused(chats.create(silent), a(OpenAI.BadRequestError), { code: "unsupported_parameter", param: "audio" });
    const stranger = client.withOptions({ apiKey: "wrong" }).models.list();
    await refused(stranger, a(OpenAI.AuthenticationError), { status: 401, code: "invalid_api_key" });
    const reader = client.withOptions({ apiKey: READ_ONLY_KEY }).chat.completions.create(chat("mock-echo"));
    await refused(reader, a(OpenAI.PermissionDeniedError), { status: 403 });
    const full = chats.create({ ...chat("mock-503"), stream: true }, { maxRetries: 0 });
    await refused(full, a(OpenAI.InternalServerError), { status: 503, code: "no_capacity" });
    const long = chats.create({ ...chat("ryvion-tiny", LONG) });
    await refused(long, a(OpenAI.BadRequestError), { code: "context_length_exceeded" });
  });

  it("sends preferences among the parameters", async () => {
    const answer = await chats.create({ ...chat("mock-echo"), jurisdiction: "EU", ryvion: { sort: "price" } });
    assert.equal(answer.ryvion.jurisdiction, "DE");
    const elsewhere = chats.create({ ...chat("mock-echo"), jurisdiction: "JP" });
    await refused(elsewhere, a(OpenAI.PermissionDeniedError), { code: "jurisdiction_not_allowed" });
  });

  it("tries again when told so", async () => {
    const { sent, fetch } = watched();
    const patient = new OpenAI({ fetch });
    const said = randomUUID();
    const answer = await patient.chat.completions.create(chat("mock-429-once", said));
    assert.equal(answer.choices[0].message.content, said);
    assert.ok(sent.length > 1);
  });

  for (const model of ["mock-midstream-error", "mock-drop"]) {
    it(`raises when ${model} breaks its answer`, async () => {
      const failed = (error) => error instanceof OpenAI.APIError && error.code === "node_failed";
      let heard = "";
      const read = async () => {
        for await (const { choices } of await chats.create({ ...chat(model), stream: true })) {
          heard += choices[0].delta.content ?? "";
          assert.equal(choices[0].finish_reason, null);
        }
      };
      await Promise.all([
        assert.rejects(read, failed),
        assert.rejects(chats.create(chat(model), { maxRetries: 0 }), failed),
        assert.rejects(chats.stream(chat(model)).finalChatCompletion(), OpenAI.APIError),
        assert.rejects(client.responses.stream({ model, input: WORDS }).finalResponse(), OpenAI.OpenAIError),
        assert.rejects(async () => collect(await client.responses.create({ model, input: WORDS, stream: true })), failed),
      ]);
      assert.ok(heard.startsWith("one two three") && BROKEN.startsWith(heard), heard);
    });
  }

  it("leaves in the middle of an answer", async () => {
    const long = chat("mock-echo", LONG);
    for await (const chunk of await chats.create({ ...long, stream: true })) if (chunk.choices[0].delta.content) break;
    const stream = await chats.create({ ...long, stream: true });
    for await (const chunk of stream) if (chunk.choices[0].delta.content) stream.controller.abort();
    const whole = chats.create(long, { signal: AbortSignal.timeout(200) });
    await assert.rejects(whole, OpenAI.APIUserAbortError);
  });
});

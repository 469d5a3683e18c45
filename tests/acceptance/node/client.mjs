// One scenario with the real openai SDK; what came of it is one line of JSON on stdout.
//
//     node --input-type=module - SCENARIO < client.mjs
//
// Read from stdin, so that `openai` is looked up from the working directory, where npm installed it.

import OpenAI from "openai";

const model = "scripted";
const options = {
  baseURL: process.env.HANDRAIL_URL,
  apiKey: process.env.HANDRAIL_KEY,
  timeout: 20_000,
};
const client = new OpenAI({ ...options, maxRetries: 0 });
const { responses } = client;

/** The error that the promise ends with, as the SDK's user sees it. */
async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    const { status, code, param, type } = error;
    const classes = ["BadRequestError", "NotFoundError"];
    return { is: classes.filter((name) => error instanceof OpenAI[name]), status, code, param, type };
  }
  throw new Error("it was not refused");
}

/** All events of a stream, or the first `most`, after which the connection is dropped. */
async function read(stream, most = Infinity) {
  const events = [];
  for await (const event of stream) {
    events.push(event);
    if (events.length === most) break;
  }
  return events;
}

/** What was streamed, in short. */
function told(events) {
  const words = events.filter((event) => event.type === "response.output_text.delta");
  return {
    numbers: events.map((event) => event.sequence_number),
    types: events.map((event) => event.type),
    text: words.map((event) => event.delta).join(""),
  };
}

/** Asks until the response has come to an end; the statuses on the way, each once. */
async function ended(response) {
  const statuses = [response.status];
  while (["queued", "in_progress"].includes(response.status)) {
    response = await responses.retrieve(response.id);
    if (response.status !== statuses.at(-1)) statuses.push(response.status);
  }
  return { statuses, response };
}

/** A background response whose stream is dropped after five events. */
async function dropped() {
  const input = "A story. [[words=12 delay=0.02]]";
  const stream = await responses.create({ model, input, background: true, stream: true });
  const events = await read(stream, 5);
  return { id: events[0].response.id, last: events.at(-1).sequence_number, before: told(events) };
}

const scenarios = {
  async create() {
    const response = await responses.create({ model, input: "Hello. [[words=3]]" });
    const { object, status, store, output_text: text, _request_id: request } = response;
    return { object, status, store, text, request };
  },

  async stream() {
    const stream = responses.stream({ model, input: "Hello. [[words=4]]" });
    const events = told(await read(stream));
    const { status, output_text: text } = await stream.finalResponse();
    return { events, final: { status, text } };
  },

  refused: () => refusal(responses.create({ model, input: "Hello.", background: true })),

  async background() {
    const input = "Hello. [[words=5 delay=0.02]]";
    const created = await responses.create({ model, input, background: true });
    const { statuses, response } = await ended(created);
    return { same: response.id === created.id, statuses, text: response.output_text };
  },

  async resume() {
    const { id, last, before } = await dropped();
    const stream = await responses.retrieve(id, { stream: true, starting_after: last });
    const after = told(await read(stream));
    return { before, after, text: (await responses.retrieve(id)).output_text };
  },

  async resume_with_the_helper() {
    const { id, last, before } = await dropped();
    const stream = responses.stream({ response_id: id, starting_after: last });
    const after = told(await read(stream));
    return { before, after, text: (await stream.finalResponse()).output_text };
  },

  async cancel() {
    const input = "Hello. [[words=5 stall=2]]";
    const { id } = await responses.create({ model, input, background: true });
    const cancelled = await responses.cancel(id);
    const kept = await responses.retrieve(id);
    const again = await responses.cancel(id);
    const statuses = [cancelled, kept, again].map((response) => response.status);
    return { statuses, output: again.output, error: again.error };
  },

  async delete() {
    const created = await responses.create({ model, input: "Hello.", background: true });
    const { response } = await ended(created);
    await responses.delete(response.id);
    return refusal(responses.retrieve(response.id));
  },

  async input_items() {
    const said = ["one", "two", "three"];
    const input = said.map((content) => ({ role: "user", content }));
    const created = await responses.create({ model, input, background: true });
    const items = [];
    // Two a page, so the SDK has to ask for a second one.
    for await (const item of responses.inputItems.list(created.id, { limit: 2, order: "asc" })) {
      items.push(item);
    }
    return {
      texts: items.map((item) => item.content[0].text),
      types: items.map((item) => item.type),
      distinct: new Set(items.map((item) => item.id)).size,
    };
  },

  async models() {
    const ids = [];
    for await (const entry of client.models.list()) ids.push(entry.id);
    return { ids, one: (await client.models.retrieve(ids[0])).id };
  },

  async retry() {
    const calls = [];
    const watching = async (url, init) => {
      const at = performance.now();
      const reply = await fetch(url, init);
      calls.push({ at, status: reply.status, retry_after: reply.headers.get("retry-after") });
      return reply;
    };
    const patient = new OpenAI({ ...options, maxRetries: 1, fetch: watching });
    const input = "Hello. [[words=2 status=429 retry_after=1 times=1 tag=node-retry]]";
    const { status } = await patient.responses.create({ model, input });
    const [first, second] = calls;
    return {
      statuses: calls.map((call) => call.status),
      retry_after: first.retry_after,
      waited: (second.at - first.at) / 1000,
      status,
    };
  },
};

console.log(JSON.stringify(await scenarios[process.argv[2]]()));

// Runs against the host at CASEMATE_TEST_URL (http://HOST:PORT/v1), which offers
// model demo with the calculator plugin, and model slow, which never answers.
// go test ./host/cmd/casemate at the root starts one and runs these tests.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import OpenAI from 'openai'

const baseURL = process.env.CASEMATE_TEST_URL
assert.ok(baseURL, 'CASEMATE_TEST_URL is not set: go test ./host/cmd/casemate at the root sets it')
const client = new OpenAI({ baseURL, apiKey: 'none', maxRetries: 0 })
const model = 'demo'
const input = 'What is 6*7?'

const weather = {
  type: 'function', name: 'weather', description: 'The weather of a town', strict: true,
  parameters: { type: 'object', properties: { town: { type: 'string' } }, required: ['town'], additionalProperties: false },
}

const pause = (ms) => new Promise((wake) => setTimeout(wake, ms))

async function ended(id) {
  for (;;) {
    const r = await client.responses.retrieve(id)
    if (r.status !== 'queued' && r.status !== 'in_progress') return r
    await pause(50)
  }
}

async function all(stream) {
  const events = []
  for await (const event of stream) events.push(event)
  return events
}

test('plain', async () => {
  const { data, response } = await client.responses.create({ model, input }).withResponse()
  assert.equal(data.status, 'completed')
  assert.match(data.output_text, /42/)
  assert.equal(data.output[0].type, 'mcp_call')
  assert.ok(response.headers.get('x-request-id'))
  assert.deepEqual(await client.responses.retrieve(data.id), await client.responses.retrieve(data.id))
})

test('the stream helper', async () => {
  const runner = client.responses.stream({ model, input })
  let text = ''
  runner.on('response.output_text.delta', (e) => { text += e.delta })
  const final = await runner.finalResponse()
  assert.equal(final.status, 'completed')
  assert.equal(text, final.output_text)
  const stored = await client.responses.retrieve(final.id)
  assert.equal(stored.output_text, text)
})

test('a tool loop with functions of the client and of the host', async () => {
  const question = 'call weather {"town":"Oslo"}\ncall calculator {"expression":"6*7"}'
  const first = await client.responses.create({ model, input: question, tools: [weather] })
  const call = first.output.find((i) => i.type === 'function_call')
  assert.equal(call.name, 'weather')
  assert.deepEqual(JSON.parse(call.arguments), { town: 'Oslo' })
  assert.equal(first.output.find((i) => i.type === 'mcp_call').output, '42')
  const second = await client.responses.create({
    model, previous_response_id: first.id, tools: [weather],
    input: [{ type: 'function_call_output', call_id: call.call_id, output: 'rain' }],
  })
  assert.match(second.output_text, /rain/)
  assert.match(second.output_text, /42/)
})

test('the stream helper with a function of the client', async () => {
  const runner = client.responses.stream({ model, input: 'call weather {"town":"Oslo"}', tools: [weather] })
  const final = await runner.finalResponse()
  assert.equal(final.output[0].type, 'function_call')
  assert.equal(final.output[0].arguments, '{"town":"Oslo"}')
})

test('the whole history sent back in place of an id', async () => {
  const first = await client.responses.create({ model, input })
  const second = await client.responses.create({
    model, store: false, input: [{ role: 'user', content: input }, ...first.output, { role: 'user', content: 'thanks' }],
  })
  assert.equal(second.status, 'completed')
  const third = await client.responses.create({
    model, input: [{ role: 'user', content: input }, ...first.output.map((i) => ({ type: 'item_reference', id: i.id })), { role: 'user', content: 'thanks' }],
  })
  assert.equal(third.status, 'completed')
})

test('background, resumed at every event', async () => {
  const events = await all(await client.responses.create({ model, input, background: true, stream: true }))
  assert.equal(events.at(-1).type, 'response.completed')
  assert.deepEqual(events.map((e) => e.sequence_number), events.map((_, i) => i))
  const id = events[0].response.id
  for (let n = -1; n < events.length; n++) {
    const query = n < 0 ? { stream: true } : { stream: true, starting_after: n }
    assert.deepEqual(await all(await client.responses.retrieve(id, query)), events.slice(n + 1), `after ${n}`)
  }
  assert.deepEqual((await client.responses.retrieve(id)).output, events.at(-1).response.output)
})

test('the stream helper of a response that is there already', async () => {
  const started = await client.responses.create({ model, input, background: true })
  const final = await client.responses.stream({ response_id: started.id }).finalResponse()
  assert.match(final.output_text, /42/)
})

test('cancel', async () => {
  const started = await client.responses.create({ model: 'slow', input, background: true })
  assert.equal((await client.responses.cancel(started.id)).status, 'cancelled')
  assert.equal((await client.responses.cancel(started.id)).status, 'cancelled')
  assert.equal((await client.responses.retrieve(started.id)).status, 'cancelled')
})

test('delete', async () => {
  const { id } = await client.responses.create({ model, input })
  await client.responses.delete(id)
  await assert.rejects(client.responses.retrieve(id), { status: 404 })
  await assert.rejects(client.responses.create({ model, input, previous_response_id: id }), { status: 400, code: 'previous_response_not_found' })
})

test('input items by pages', async () => {
  const input = ['one', 'two', 'three'].map((content) => ({ role: 'user', content }))
  const { id } = await client.responses.create({ model, input })
  const texts = []
  for await (const item of client.responses.inputItems.list(id, { limit: 2, order: 'asc' })) {
    texts.push(typeof item.content === 'string' ? item.content : item.content[0].text)
  }
  assert.deepEqual(texts, ['one', 'two', 'three'])
})

test('a conversation', async () => {
  const conversation = await client.conversations.create({ metadata: { topic: 'sums' } })
  await client.responses.create({ model, input, conversation: conversation.id })
  await client.responses.create({ model, input: 'thanks', conversation: conversation.id })
  const items = []
  for await (const item of client.conversations.items.list(conversation.id, { order: 'asc' })) items.push(item.type)
  assert.deepEqual(items, ['message', 'mcp_call', 'message', 'message', 'message'])
  assert.equal((await client.conversations.delete(conversation.id)).deleted, true)
})

test('compaction and counting', async () => {
  const counted = await client.responses.inputTokens.count({ model, input })
  assert.ok(counted.input_tokens > 3)
  const compacted = await client.responses.compact({ model, input: [{ role: 'user', content: input }, { role: 'assistant', content: '42' }] })
  assert.equal(compacted.object, 'response.compaction')
  assert.ok(compacted.output.some((i) => i.type === 'compaction'))
  const next = await client.responses.create({ model, input: [...compacted.output, { role: 'user', content: 'go on' }] })
  assert.equal(next.status, 'completed')
})

test('an idempotency key', async () => {
  const headers = { 'Idempotency-Key': `node-${Date.now()}` }
  const first = await client.responses.create({ model, input }, { headers })
  const again = await client.responses.create({ model, input }, { headers })
  assert.equal(again.id, first.id)
  await assert.rejects(client.responses.create({ model, input: 'another' }, { headers }), { status: 409 })
})

test('errors are typed', async () => {
  await assert.rejects(client.responses.create({ model: 'no-such-model', input }), (err) => {
    assert.ok(err instanceof OpenAI.NotFoundError)
    assert.equal(err.code, 'model_not_found')
    assert.ok(err.requestID)
    return true
  })
  await assert.rejects(client.responses.create({ model, input, temperature: 9 }), { status: 400, param: 'temperature' })
})

test('chat completions, streamed and not, and embeddings', async () => {
  const messages = [{ role: 'user', content: 'hello' }]
  const whole = await client.chat.completions.create({ model, messages })
  assert.match(whole.choices[0].message.content, /hello/)
  const streamed = await client.chat.completions.stream({ model, messages }).finalContent()
  assert.equal(streamed, whole.choices[0].message.content)
  const asBase64 = await client.embeddings.create({ model, input: 'hello' })
  const asFloats = await client.embeddings.create({ model, input: 'hello', encoding_format: 'float' })
  assert.equal(asBase64.data[0].embedding.length, asFloats.data[0].embedding.length)
  const models = []
  for await (const m of client.models.list()) models.push(m.id)
  assert.ok(models.includes(model))
})

test('a batch', async () => {
  const line = (id, body) => JSON.stringify({ custom_id: id, method: 'POST', url: '/v1/responses', body })
  const lines = [line('a', { model, input }), line('b', { model, input: 'hello' })].join('\n')
  const file = await client.files.create({ file: new File([lines], 'lines.jsonl'), purpose: 'batch' })
  assert.equal(await (await client.files.content(file.id)).text(), lines)
  let batch = await client.batches.create({ input_file_id: file.id, endpoint: '/v1/responses', completion_window: '24h' })
  while (!['completed', 'failed', 'expired', 'cancelled'].includes(batch.status)) {
    await pause(100)
    batch = await client.batches.retrieve(batch.id)
  }
  assert.equal(batch.status, 'completed')
  assert.deepEqual({ ...batch.request_counts }, { total: 2, completed: 2, failed: 0 })
  const out = (await (await client.files.content(batch.output_file_id)).text()).trim().split('\n').map((l) => JSON.parse(l))
  assert.deepEqual(out.map((l) => l.custom_id), ['a', 'b'])
  assert.equal(out[0].response.status_code, 200)
  assert.match(JSON.stringify(out[0].response.body.output), /42/)
})

test('a foreground request ends with its client', async () => {
  const aborted = new AbortController()
  const stream = await client.responses.create({ model: 'slow', input, stream: true }, { signal: aborted.signal })
  let id
  for await (const event of stream) {
    id = event.response.id
    if (event.type === 'response.in_progress') break
  }
  aborted.abort()
  assert.equal((await ended(id)).status, 'cancelled')
})

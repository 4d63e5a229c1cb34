// The frameworks that people put on top of the client: each sends a host's own
// tool calls back in its own way.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createOpenAI } from '@ai-sdk/openai'
import { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } from '@openai/agents'
import { generateText, isStepCount, streamText, tool as aiTool } from 'ai'
import { z } from 'zod'

const baseURL = process.env.CASEMATE_TEST_URL
assert.ok(baseURL, 'CASEMATE_TEST_URL is not set: go test ./host/cmd/casemate at the root sets it')
setTracingDisabled(true)

test('AI SDK', async () => {
  const model = createOpenAI({ baseURL, apiKey: 'none' }).responses('demo')
  const first = await generateText({ model, prompt: 'What is 6*7?' })
  assert.match(first.text, /42/)
  const second = await generateText({
    model,
    messages: [{ role: 'user', content: 'What is 6*7?' }, ...first.response.messages, { role: 'user', content: 'thanks' }],
  })
  assert.match(second.text, /thanks/)
  const streamed = streamText({ model, prompt: 'What is 6*7?' })
  assert.match(await streamed.text, /42/)
})

test('AI SDK with a tool of its own', async () => {
  const model = createOpenAI({ baseURL, apiKey: 'none' }).responses('demo')
  const { text } = await generateText({
    model, prompt: 'call weather {"town":"Oslo"}', stopWhen: isStepCount(3),
    tools: { weather: aiTool({ description: 'weather', inputSchema: z.object({ town: z.string() }), execute: async () => 'rain' }) },
  })
  assert.match(text, /rain/)
})

test('Agents', async () => {
  const weather = tool({
    name: 'weather', description: 'weather', parameters: z.object({ town: z.string() }), execute: async () => 'rain',
  })
  const agent = new Agent({ name: 'a', instructions: 'Answer.', model: 'demo', tools: [weather] })
  const runner = new Runner({ modelProvider: new OpenAIProvider({ baseURL, apiKey: 'none', useResponses: true }) })
  const first = await runner.run(agent, 'call weather {"town":"Oslo"}\ncall calculator {"expression":"6*7"}')
  assert.match(first.finalOutput, /rain/)
  const second = await runner.run(agent, [...first.history, { role: 'user', content: 'thanks' }])
  assert.match(second.finalOutput, /thanks/)
  const streamed = await runner.run(agent, 'What is 6*7?', { stream: true })
  await streamed.completed
  assert.match(streamed.finalOutput, /42/)
})

// Asks a Casemate host in every way that OpenAI's client for JavaScript offers
// for responses. Nothing here is Casemate's own but the address.
//
//	npm ci && npm start            (CASEMATE_URL, CASEMATE_KEY, CASEMATE_MODEL)

import OpenAI from 'openai'

const baseURL = process.env.CASEMATE_URL ?? 'http://127.0.0.1:8080/v1'
const apiKey = process.env.CASEMATE_KEY ?? 'none'
const model = process.env.CASEMATE_MODEL ?? 'demo'
const client = new OpenAI({ baseURL, apiKey })

// It needs the calculator plugin of the host.
const input = 'What is 6*7?'

const plain = await client.responses.create({ model, input })
console.log('plain:     ', plain.output_text)

const streamed = await client.responses.stream({ model, input }).finalResponse()
console.log('streamed:  ', streamed.output_text)

let background = await client.responses.create({ model, input, background: true })
while (background.status === 'queued' || background.status === 'in_progress') {
  await new Promise((wake) => setTimeout(wake, 100))
  background = await client.responses.retrieve(background.id)
}
console.log('background:', background.output_text)

const next = await client.responses.create({ model, input: 'And what did I ask?', previous_response_id: background.id })
console.log('continued: ', next.output_text)

"""Runs against the host at CASEMATE_TEST_URL (http://HOST:PORT/v1), which offers
model demo with the calculator plugin, and model slow, which never answers.
go test ./host/cmd/casemate at the root starts one and runs these tests."""

import json
import os
import time
import unittest
import uuid

import openai
from openai import OpenAI

MODEL = "demo"
QUESTION = "What is 6*7?"
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a town",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"town": {"type": "string"}},
        "required": ["town"],
        "additionalProperties": False,
    },
}


class Client(unittest.TestCase):
    def setUp(self) -> None:
        url = os.environ.get("CASEMATE_TEST_URL")
        if not url:
            self.fail("CASEMATE_TEST_URL is not set: go test ./host/cmd/casemate at the root sets it")
        self.client = OpenAI(base_url=url, api_key="none", max_retries=0)
        self.addCleanup(self.client.close)

    def ended(self, id: str):
        while (r := self.client.responses.retrieve(id)).status in ("queued", "in_progress"):
            time.sleep(0.05)
        return r

    def test_plain(self) -> None:
        r = self.client.responses.create(model=MODEL, input=QUESTION)
        self.assertEqual(r.status, "completed")
        self.assertIn("42", r.output_text)
        self.assertEqual(r.output[0].type, "mcp_call")
        self.assertEqual(r.output[0].output, "42")
        self.assertEqual(self.client.responses.retrieve(r.id).output_text, r.output_text)

    def test_raw_stream(self) -> None:
        events = list(self.client.responses.create(model=MODEL, input=QUESTION, stream=True))
        self.assertEqual([e.sequence_number for e in events], list(range(len(events))))
        self.assertEqual(events[0].type, "response.created")
        self.assertEqual(events[-1].type, "response.completed")

    def test_stream_helper(self) -> None:
        text = ""
        with self.client.responses.stream(model=MODEL, input=QUESTION) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    text += event.delta
            final = stream.get_final_response()
        self.assertEqual(text, final.output_text)
        self.assertEqual(final.status, "completed")

    def test_tool_loop(self) -> None:
        question = 'call weather {"town":"Oslo"}\ncall calculator {"expression":"6*7"}'
        first = self.client.responses.create(model=MODEL, input=question, tools=[WEATHER])
        call = next(i for i in first.output if i.type == "function_call")
        self.assertEqual(json.loads(call.arguments), {"town": "Oslo"})
        second = self.client.responses.create(
            model=MODEL,
            previous_response_id=first.id,
            tools=[WEATHER],
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        )
        self.assertIn("rain", second.output_text)
        self.assertIn("42", second.output_text)

    def test_background_and_resume(self) -> None:
        started = self.client.responses.create(model=MODEL, input=QUESTION, background=True)
        self.assertIn(started.status, ("queued", "in_progress"))
        self.assertIn("42", self.ended(started.id).output_text)
        events = list(self.client.responses.retrieve(started.id, stream=True))
        for n in range(len(events)):
            rest = list(self.client.responses.retrieve(started.id, stream=True, starting_after=n))
            self.assertEqual(rest, events[n + 1 :])

    def test_cancel(self) -> None:
        started = self.client.responses.create(model="slow", input=QUESTION, background=True)
        self.assertEqual(self.client.responses.cancel(started.id).status, "cancelled")
        self.assertEqual(self.client.responses.retrieve(started.id).status, "cancelled")

    def test_foreground_is_not_cancelled(self) -> None:
        r = self.client.responses.create(model=MODEL, input=QUESTION)
        with self.assertRaises(openai.BadRequestError):
            self.client.responses.cancel(r.id)

    def test_delete(self) -> None:
        r = self.client.responses.create(model=MODEL, input=QUESTION)
        self.client.responses.delete(r.id)
        with self.assertRaises(openai.NotFoundError):
            self.client.responses.retrieve(r.id)

    def test_input_items(self) -> None:
        said = [{"role": "user", "content": str(n)} for n in range(5)]
        r = self.client.responses.create(model=MODEL, input=said)
        items = list(self.client.responses.input_items.list(r.id, limit=2))
        self.assertEqual(len(items), 5)
        self.assertEqual(len({i.id for i in items}), 5)

    def test_conversation(self) -> None:
        conversation = self.client.conversations.create(items=[{"type": "message", "role": "user", "content": "hello"}])
        r = self.client.responses.create(model=MODEL, input=QUESTION, conversation=conversation.id)
        self.assertEqual(r.conversation.id, conversation.id)
        items = list(self.client.conversations.items.list(conversation.id, order="asc"))
        self.assertEqual([i.type for i in items], ["message", "message", "mcp_call", "message"])
        self.assertTrue(self.client.conversations.delete(conversation.id).deleted)

    def test_idempotency_key(self) -> None:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        first = self.client.responses.create(model=MODEL, input=QUESTION, extra_headers=headers)
        again = self.client.responses.create(model=MODEL, input=QUESTION, extra_headers=headers)
        self.assertEqual(first.id, again.id)
        with self.assertRaises(openai.ConflictError):
            self.client.responses.create(model=MODEL, input="another", extra_headers=headers)

    def test_errors(self) -> None:
        with self.assertRaises(openai.NotFoundError) as caught:
            self.client.responses.create(model="no-such-model", input=QUESTION)
        self.assertEqual(caught.exception.code, "model_not_found")
        self.assertTrue(caught.exception.request_id)

    def test_chat_and_embeddings(self) -> None:
        messages = [{"role": "user", "content": "hello"}]
        whole = self.client.chat.completions.create(model=MODEL, messages=messages)
        chunks = self.client.chat.completions.create(model=MODEL, messages=messages, stream=True)
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, whole.choices[0].message.content)
        vectors = self.client.embeddings.create(model=MODEL, input=["hello", "you"])
        self.assertEqual(len(vectors.data), 2)
        self.assertIn(MODEL, [m.id for m in self.client.models.list()])

    def test_files_and_batches(self) -> None:
        lines = [
            {
                "custom_id": f"line-{n}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": MODEL, "messages": [{"role": "user", "content": f"number {n}"}]},
            }
            for n in range(20)
        ]
        data = "\n".join(map(json.dumps, lines)).encode()
        file = self.client.files.create(file=("lines.jsonl", data), purpose="batch")
        self.assertEqual(self.client.files.content(file.id).read(), data)
        batch = self.client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        while batch.status not in ("completed", "failed", "expired", "cancelled"):
            time.sleep(0.1)
            batch = self.client.batches.retrieve(batch.id)
        self.assertEqual(batch.status, "completed")
        self.assertEqual(batch.request_counts.completed, 20)
        out = [json.loads(l) for l in self.client.files.content(batch.output_file_id).read().splitlines()]
        self.assertEqual([o["custom_id"] for o in out], [l["custom_id"] for l in lines])
        self.client.files.delete(file.id)
        with self.assertRaises(openai.NotFoundError):
            self.client.files.retrieve(file.id)


if __name__ == "__main__":
    unittest.main()

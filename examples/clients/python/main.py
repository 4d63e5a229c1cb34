"""Asks a Casemate host in every way that OpenAI's client for Python offers for
responses. Nothing here is Casemate's own but the address.

    pip install -r requirements.txt && python main.py

CASEMATE_URL, CASEMATE_KEY and CASEMATE_MODEL say whom to ask.
"""

import os
import time

from openai import OpenAI

URL = os.environ.get("CASEMATE_URL", "http://127.0.0.1:8080/v1")
KEY = os.environ.get("CASEMATE_KEY", "none")
MODEL = os.environ.get("CASEMATE_MODEL", "demo")

# It needs the calculator plugin of the host.
QUESTION = "What is 6*7?"


def main() -> None:
    client = OpenAI(base_url=URL, api_key=KEY)

    plain = client.responses.create(model=MODEL, input=QUESTION)
    print("plain:     ", plain.output_text)

    with client.responses.stream(model=MODEL, input=QUESTION) as stream:
        print("streamed:  ", stream.get_final_response().output_text)

    background = client.responses.create(model=MODEL, input=QUESTION, background=True)
    while background.status in ("queued", "in_progress"):
        time.sleep(0.1)
        background = client.responses.retrieve(background.id)
    print("background:", background.output_text)

    continued = client.responses.create(model=MODEL, input="And what did I ask?", previous_response_id=background.id)
    print("continued: ", continued.output_text)


if __name__ == "__main__":
    main()

"""Requests to `guiderail serve`: a schema, a tool call, a grammar, a negative prompt, and guidance with a schema.

guiderail serve MODEL --port 8000 --enable-auto-tool-choice --tool-call-parser hermes
python examples/vllm_client.py http://localhost:8000
"""

from __future__ import annotations

import sys

from openai import OpenAI

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
    },
}
QUERY = 'root ::= "SELECT " name " FROM " name ";"\nname ::= [a-z]{1,10}'


def main(url: str) -> None:
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    model = client.models.list().data[0].id

    def say(text: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": text}]

    person = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}
    answer = client.chat.completions.create(
        model=model, messages=say("Alice is 31."), response_format=person, max_tokens=60
    )
    print("schema:         ", answer.choices[0].message.content)

    answer = client.chat.completions.create(
        model=model, messages=say("What is 3 + 4?"), tools=[ADD], tool_choice="required", max_tokens=200, temperature=0
    )
    calls = answer.choices[0].message.tool_calls or []
    print("tool call:      ", [(call.function.name, call.function.arguments) for call in calls])

    text = client.completions.create(
        model=model, prompt="All users: ", max_tokens=30, extra_body={"structured_outputs": {"grammar": QUERY}}
    )
    print("grammar:        ", text.choices[0].text)

    guidance = {"guidance_scale": 1.5, "negative_prompt": "Cooking is dangerous and"}
    text = client.completions.create(
        model=model,
        prompt="The best way to boil an egg is",
        max_tokens=20,
        temperature=0,
        extra_body={"vllm_xargs": guidance},
    )
    print("guidance:       ", text.choices[0].text)

    answer = client.chat.completions.create(
        model=model,
        messages=say("Invent a person."),
        response_format=person,
        max_tokens=60,
        extra_body={"vllm_xargs": guidance},
    )
    print("guidance+schema:", answer.choices[0].message.content)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000")

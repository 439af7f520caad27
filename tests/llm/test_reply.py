"""What is read of a response."""

import json

import pytest

from harness.llm.reply import parse_response, reply_from


@pytest.mark.parametrize(
    "choice",
    [
        {"message": {"content": "Hi there"}},
        {"message": {"content": "Hi there"}, "text": None},
        {
            "message": {
                "content": [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
            }
        },
        {
            "message": {
                "content": [
                    {"type": "thinking", "thinking": "Hm."},
                    {"type": "text", "text": "Hi there"},
                ]
            }
        },
    ],
)
def test_a_chats_answer_is_its_messages_text_however_it_is_written(choice: object) -> None:
    raw = parse_response(json.dumps({"choices": [choice]}), "chat")
    assert (
        reply_from(raw, reused=False).text == raw["choices"][0]["message"]["content"] == "Hi there"
    )

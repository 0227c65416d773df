from __future__ import annotations

import pytest

from kubechain_common.api.tool_arguments import read_question


@pytest.mark.parametrize(
    ("arguments", "question"),
    [
        ('{"message": "Which year?"}', "Which year?"),
        ('{"message": "", "why": "?"}', ""),
        ('{"message": "caf\\u00e9 \\ud83d\\ude00 \\ud800"}', "café 😀 \ufffd"),
        ('{"message": 7}', '{"message": 7}'),
        ("{}", "{}"),
        ("[1]", "[1]"),
        ("7", "7"),
        ("{broken", "{broken"),
        ("[" * 10_000, "[" * 10_000),
    ],
)
def test_a_question_is_the_message_or_what_there_is_in_its_place(arguments: str, question: str) -> None:
    assert read_question(arguments) == question
    question.encode()

"""The tutorial's answers, without a server."""

from __future__ import annotations

import json

import pytest

from kubechain_cli.scripted_llm import MARKER, ChatMessage, ToolSpec
from kubechain_cli.scripted_llm.tutorial_script import find_json_object, find_url, reply_tutorial

FETCH = ToolSpec("fetch__fetch")
SYSTEM = ChatMessage("system", "You are a helpful assistant.")
QUESTION = "what is the data at https://swapi.dev/api/people/1? "
PAGE = {"name": "Luke Skywalker", "hair_color": "blond", "films": ["https://swapi.dev/api/films/1/"], "species": []}


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("What is the capital of the moon?", "The Moon does not have a capital."),
        ("What is your name and primary directive?", "script"),
        ("What is the meaning of life?", "only know the questions of the tutorial"),
        ("what is at https://example.org/?", "no tool to fetch https://example.org/ with"),
    ],
)
def test_every_answer_says_that_it_is_scripted(question: str, words: str) -> None:
    reply = reply_tutorial([SYSTEM, ChatMessage("user", question)], [])
    assert reply.text.startswith(MARKER)
    assert words in reply.text
    assert not reply.tool_calls


def test_a_url_becomes_a_call_of_the_fetch_tool() -> None:
    reply = reply_tutorial([SYSTEM, ChatMessage("user", QUESTION)], [ToolSpec("other__tool"), FETCH])
    (call,) = reply.tool_calls
    assert (call.name, json.loads(call.arguments)) == ("fetch__fetch", {"url": "https://swapi.dev/api/people/1"})


def answer_to(page: str, question: str = QUESTION) -> str:
    user = ChatMessage("user", question)
    (call,) = reply_tutorial([SYSTEM, user], [FETCH]).tool_calls
    asked = ChatMessage("assistant", tool_calls=(call,))
    return reply_tutorial([SYSTEM, user, asked, ChatMessage("tool", page, tool_call_id=call.id)], [FETCH]).text


def test_the_answer_is_made_from_what_the_tool_gave_back() -> None:
    text = answer_to(f"Contents of https://swapi.dev/api/people/1:\n{json.dumps(PAGE)}")
    assert text.startswith(MARKER)
    assert "- **Name**: Luke Skywalker\n- **Hair Color**: blond\n" in text
    assert "- **Films**:\n  - https://swapi.dev/api/films/1/\n- **Species**: None listed" in text


def test_a_failed_fetch_is_no_invented_answer() -> None:
    text = answer_to("Error: connection refused")
    assert text.startswith(MARKER)
    assert "Error: connection refused" in text
    assert "Luke" not in text


def test_the_haiku_of_the_tutorial() -> None:
    text = answer_to(
        '{"name": "C-3PO"}', "Write me a haiku about the character found at https://swapi.dev/api/people/2?"
    )
    assert text == f"{MARKER}\nGolden C-3PO,\nSpeaks in many languages,\nDroid with gentle heart."


def test_find_url_leaves_the_punctuation_of_the_sentence() -> None:
    assert find_url("see (http://127.0.0.1:8080/api/people/1).") == "http://127.0.0.1:8080/api/people/1"
    assert find_url("no url") == ""


def test_find_json_object_skips_what_is_none() -> None:
    assert find_json_object('{not json} then {"a": {"b": 1}} and more') == {"a": {"b": 1}}
    assert find_json_object("[1, 2]") is None

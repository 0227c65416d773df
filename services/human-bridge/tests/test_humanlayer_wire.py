from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1.contactchannel import ContactChannelSpec
from kubechain_common.api.v1alpha1.taskruntoolcall import Decision, HumanResponse
from kubechain_common.messages import ObjectRef
from kubechain_common.testing.builders import NOW
from kubechain_human_bridge.channels.base import Ask, Kind
from kubechain_human_bridge.channels.humanlayer_wire import MAX_TEXT, encode_request, read_answer

SPEC = ContactChannelSpec.model_validate({"type": "email", "email": {"address": "a@example.com"}})

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def encode(arguments: str, kind: Kind = "Approval", message: str = "") -> Any:
    ask = Ask(
        call=ObjectRef(namespace="default", name="call", uid="u"),
        kind=kind,
        external_call_id="ec-1",
        run_id="kc-1",
        task="task",
        agent="agent",
        tool="fetch",
        arguments=arguments,
        message=message,
        user_message="",
        requested_at=NOW,
    )
    return json.loads(encode_request(SPEC, ask))["spec"]


@pytest.mark.parametrize(
    ("arguments", "kwargs"),
    [
        ('{"a": 12345678901234567890123}', {"a": 12345678901234567890123}),
        ("", {}),
        ("[1]", {"arguments": "[1]"}),
        ("{broken", {"arguments": "{broken"}),
        ('{"a": NaN}', {"arguments": '{"a": NaN}'}),
        ("null", {"arguments": "null"}),
    ],
)
def test_arguments_are_shown_as_they_are(arguments: str, kwargs: dict[str, Any]) -> None:
    assert encode(arguments)["kwargs"] == kwargs


@pytest.mark.parametrize("depth", [400, 900, 950, 990, 100_000])
def test_deep_arguments_break_nothing(depth: int) -> None:
    deep = '{"a": ' + "[" * depth + "]" * depth + "}"
    try:
        sent = encode(deep)["kwargs"]
    except RecursionError:
        pytest.fail("it could not be written")
    assert sent


def test_long_texts_are_cut() -> None:
    sent = encode(json.dumps({"a": "x" * 200_000}))["kwargs"]
    assert len(sent["arguments"]) == MAX_TEXT
    assert len(encode("{}", "Contact", "x" * 200_000)["msg"]) == MAX_TEXT


@given(st.text(max_size=200) | ANYTHING.map(json.dumps))
def test_whatever_the_model_wrote_can_be_sent(arguments: str) -> None:
    assert isinstance(encode(arguments)["kwargs"], dict)


@given(ANYTHING | st.fixed_dictionaries({"status": ANYTHING}), st.sampled_from(["Approval", "Contact"]))
def test_whatever_the_api_says_is_an_answer_or_none(body: object, kind: Kind) -> None:
    assert_fits(kind, body)


STATUS = st.fixed_dictionaries(
    {},
    optional={
        "approved": st.booleans() | ANYTHING,
        "comment": ANYTHING,
        "response": ANYTHING,
        "responded_at": ANYTHING,
        "reject_option_name": ANYTHING,
        "user_info": ANYTHING | st.dictionaries(st.sampled_from(["email", "name", "id"]), ANYTHING),
        "slack_context": ANYTHING,
    },
)


@given(STATUS, st.sampled_from(["Approval", "Contact"]))
def test_whatever_a_status_holds_is_an_answer_or_none(status: dict[str, Any], kind: Kind) -> None:
    assert_fits(kind, {"status": status})


def assert_fits(kind: Kind, body: object) -> None:
    """An answer that was read can be written into a call."""
    found = read_answer(kind, body, "somebody")
    if found is None:
        return
    assert found.by
    if kind == "Approval":
        assert found.approved is not None
        Decision(approved=found.approved, comment=found.comment, by=found.by).model_dump_json()
    else:
        HumanResponse(message=found.response, by=found.by).model_dump_json()


def test_an_empty_answer_is_an_answer() -> None:
    found = read_answer("Contact", {"status": {"responded_at": "now", "response": ""}}, "a@example.com")
    assert found is not None
    assert (found.response, found.by) == ("[no text]", "a@example.com")


def test_a_rejection_by_an_option_carries_its_name() -> None:
    found = read_answer("Approval", {"status": {"approved": False, "reject_option_name": "too-expensive"}}, "x")
    assert found is not None
    assert (found.approved, found.comment) == (False, "too-expensive")


def test_half_a_character_is_replaced() -> None:
    found = read_answer("Approval", {"status": {"approved": True, "comment": "a\ud800b"}}, "x")
    assert found is not None
    assert found.comment == "a?b"

"""What a person reads of a call: everything that will run, and nothing that only looks like it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.testing.arbitrary import fuzz
from kubechain_human_bridge.channels.ask_text import pretty_arguments

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("depth", [20, 300, 900, 20_000])
def test_indents_do_not_outgrow_deep_json(depth: int) -> None:
    arguments = '{"a":' + "[" * depth + ",".join(["1"] * 20_000) + "]" * depth + "}"
    assert pretty_arguments(arguments) == arguments


def test_long_json_is_shown_as_it_is() -> None:
    arguments = json.dumps({"numbers": list(range(20_000))})
    assert pretty_arguments(arguments) == arguments


@pytest.mark.parametrize("hidden", ["\u202e", "\u200b", "\ufeff", "\u3164", "\x7f", "\U000e0041", "\ud800"])
def test_what_hides_is_shown_as_its_escape(hidden: str) -> None:
    arguments = json.dumps({"url": f"https://a{hidden}b"}, ensure_ascii=False)
    shown = pretty_arguments(arguments)
    assert hidden not in shown
    assert json.loads(shown) == json.loads(arguments)
    assert hidden not in pretty_arguments(f"no JSON {hidden}")
    shown.encode()


def test_a_terminal_is_not_steered_by_what_is_no_json() -> None:
    assert pretty_arguments("\x1b[2J") == "\\u001b[2J"


@fuzz
@given(JSON)
def test_what_is_shown_means_what_will_run(value: object) -> None:
    assert json.loads(pretty_arguments(json.dumps(value, ensure_ascii=False))) == value

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_llm_gateway.protocols.wire_ids import fit_id
from kubechain_llm_gateway.protocols.wire_json import UNPARSABLE, decode, encode, parse_arguments


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda i: st.lists(i) | st.dictionaries(st.text(), i)
    )
)
def test_any_value_is_encoded_as_json(value: Any) -> None:
    assert json.loads(encode(value)) == value


def test_lone_surrogates_can_be_sent() -> None:
    assert json.loads(encode({"a": "\ud800"})) == {"a": "\ud800"}


@pytest.mark.parametrize("text", ["{", "[1]", "3", '"x"', "nope", '{"a": NaN}', '{"a": 1e999}', "[" * 100_000])
def test_arguments_that_are_no_object_are_kept_as_text(text: str) -> None:
    assert parse_arguments(text) == {UNPARSABLE: text}


def test_big_numbers_keep_their_digits() -> None:
    big = 12345678901234567890123
    assert json.loads(encode(parse_arguments(f'{{"a": {big}}}'))) == {"a": big}


@pytest.mark.parametrize("text", ["", "  ", "{}"])
def test_absent_arguments_are_an_empty_object(text: str) -> None:
    assert parse_arguments(text) == {}


def test_half_a_surrogate_pair_in_a_reply_is_replaced_and_a_whole_one_is_not() -> None:
    value = decode(b'{"a": ["\\ud83d\\ude00", "x\\ud83d"], "\\uD800": 1}')
    assert value == {"a": ["\U0001f600", "x�"], "�": 1}


@given(st.text(), st.text())
def test_fitted_ids_are_safe_stable_and_distinct(one: str, other: str) -> None:
    fitted = fit_id(one, 40)
    assert 0 < len(fitted) <= 40
    assert fitted == fit_id(one, 40) == fit_id(fitted, 40)
    if one != other and len(one) < 13 and len(other) < 13:
        assert fitted != fit_id(other, 40)

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.kube.deep_json import load

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


@given(before=values, after=values)
def test_what_stands_beside_a_deep_value_is_read_as_it_is(before: Any, after: Any) -> None:
    text = f'{{"a": {json.dumps(before)}, "deep": {deep(3000)}, "b": {json.dumps(after)}}}'
    read = load(text.encode())
    assert (read["a"], read["b"]) == (before, after)
    levels, value = 0, read["deep"]
    while value:
        levels, (value,) = levels + 1, value
    assert levels == 511
    assert value is None


def test_brackets_and_quotes_in_text_are_text() -> None:
    text = json.dumps({'\\"[': '{"' * 600 + "\\"})
    assert load(f'[{text}, {deep(2000)}, {{"x":{deep(9000)}}}]'.encode())[0] == json.loads(text)


@pytest.mark.parametrize("text", [b"", b"{", b'{"a": nul}', b"[" * 2000, b"]" * 2000, b'["' + b"[" * 2000])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        load(text)


def test_a_megabyte_of_brackets_takes_no_time() -> None:
    started = time.process_time()
    load(f'["{"a" * 1_000_000}", {deep(200_000)}]'.encode())
    assert time.process_time() - started < 2

"""Names: the same call always gets the same name, two calls never share one, and the API server takes them all."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api import names
from kubechain_common.api.names import (
    LABEL_TASK,
    LABEL_TASK_UID,
    label_value,
    tool_call_labels,
    tool_call_name,
    turn_key,
)

UID = "52893dec-c5a5-424d-983f-13a89215b084"
OTHER_UID = "3f8c4eaf-0e46-44f6-9741-f32809747099"
DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")

object_names = st.from_regex(DNS_SUBDOMAIN, fullmatch=True).filter(lambda name: len(name) <= 253)
long_names = st.builds(lambda name: (name * 253)[:253].rstrip("-."), object_names)
task_names = st.one_of(object_names, long_names)


def test_a_name_reads_as_task_turn_and_call() -> None:
    assert re.fullmatch(r"fetch-task-[0-9a-f]{7}-tc-01", tool_call_name("fetch-task", UID, 1, 1))


@given(task_names, st.integers(1, 1000), st.integers(1, 256))
def test_a_name_is_deterministic_and_valid(task: str, turn: int, index: int) -> None:
    name = tool_call_name(task, UID, turn, index)
    assert name == tool_call_name(task, UID, turn, index)
    assert len(name) <= 253
    assert DNS_SUBDOMAIN.fullmatch(name)


def test_calls_of_other_turns_tasks_and_places_have_other_names() -> None:
    found = [
        tool_call_name("t", UID, 1, 1),
        tool_call_name("t", UID, 1, 2),
        tool_call_name("t", UID, 2, 1),
        tool_call_name("t", OTHER_UID, 1, 1),
    ]
    assert len(set(found)) == len(found)


def test_turns_of_a_task_whose_digests_are_the_same_have_other_names() -> None:
    """Found by search: two of 28 bits each."""
    uid, earlier, later = "uid-1824", 198, 281
    digests = {hashlib.sha256(f"{uid}\0{turn}".encode()).hexdigest()[:7] for turn in (earlier, later)}
    assert digests == {"4398aac"}
    assert tool_call_name("t", uid, earlier, 1) == "t-4398aac-tc-01"
    assert tool_call_name("t", uid, later, 1) != "t-4398aac-tc-01"


def test_no_two_of_many_turns_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = names._digest
    monkeypatch.setattr(names, "_digest", lambda *parts: whole(*parts)[:2])
    uid = "of a test with eight bits"
    assert len({tool_call_name("t", uid, turn, 1) for turn in range(1, 200)}) == 199


def test_tasks_with_the_same_long_beginning_keep_apart() -> None:
    stem = "a" * 252
    assert tool_call_name(stem + "b", UID, 1, 1) != tool_call_name(stem + "c", OTHER_UID, 1, 1)


def test_more_than_99_calls_in_a_turn_still_have_names() -> None:
    assert tool_call_name("t", UID, 1, 100).endswith("-tc-100")


@pytest.mark.parametrize("separator", [".", "--"])
@pytest.mark.parametrize("cut", range(230, 245))
def test_a_cut_never_ends_in_a_dot_or_a_dash(cut: int, separator: str) -> None:
    task = ("a" * cut + separator + "b" * 253)[:253]
    assert DNS_SUBDOMAIN.fullmatch(tool_call_name(task, UID, 1, 1))


@given(task_names)
def test_a_label_value_fits(name: str) -> None:
    value = label_value(name)
    assert len(value) <= 63
    assert LABEL_VALUE.fullmatch(value)
    assert value == name or len(name) > 63


def test_a_name_with_dots_is_its_own_label() -> None:
    assert label_value("a.b-c.d") == "a.b-c.d"


def test_long_names_with_the_same_beginning_have_different_labels() -> None:
    assert label_value("a" * 70 + "b") != label_value("a" * 70 + "c")


def test_labels_name_the_task_and_its_uid() -> None:
    assert tool_call_labels("approved-fetch-task-1", UID) == {
        "kubechain.humanlayer.dev/taskruntoolcall": "approved-fetch-task-1",
        "kubechain.humanlayer.dev/task-uid": UID,
    }
    assert {LABEL_TASK, LABEL_TASK_UID} == set(tool_call_labels("t", UID))


def test_a_turn_key_is_uid_and_turn() -> None:
    assert turn_key(UID, 3) == f"{UID}.3"

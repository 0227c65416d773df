from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kubechain_common.api.v1alpha1 import Task
from kubechain_common.kube.event_queue import EventQueue, PendingEvent, build_event, identity_of

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(message: str = "m", *, name: str = "a", seconds: int = 0, uid: str = "u") -> PendingEvent:
    task = Task.model_validate(
        {
            "metadata": {"namespace": "ns", "name": name, "uid": uid},
            "spec": {"agentRef": {"name": "x"}, "userMessage": "m"},
        }
    )
    return build_event(task, "task-controller", "Normal", "Waiting", message, NOW + timedelta(seconds=seconds))


def test_the_same_words_about_the_same_object_are_the_same_event() -> None:
    assert event().identity == event(seconds=9).identity
    assert len({event().identity, event("n").identity, event(uid="v").identity}) == 3


def test_what_is_read_back_has_the_identity_of_what_was_written() -> None:
    assert identity_of(event().build_new()) == event().identity


def test_names_are_in_the_order_of_the_first_sightings() -> None:
    names = [event(seconds=seconds).name for seconds in (0, 1, 9, 10, 100)]
    assert names == sorted(names)


def test_a_name_fits_and_stays_valid_however_long_the_objects_name() -> None:
    name = event(name="a" * 235 + "." + "b" * 17).name
    assert len(name) <= 253
    assert ".." not in name


def test_an_event_says_who_saw_what_about_whom() -> None:
    body = event().build_new()
    assert body["involvedObject"] == {
        "apiVersion": "kubechain.humanlayer.dev/v1alpha1",
        "kind": "Task",
        "namespace": "ns",
        "name": "a",
        "uid": "u",
    }
    assert body["source"] == {"component": "task-controller"}
    assert (body["type"], body["reason"], body["message"], body["count"]) == ("Normal", "Waiting", "m", 1)
    assert body["firstTimestamp"] == body["lastTimestamp"] == "2026-01-02T03:04:05Z"


def test_a_long_message_is_cut() -> None:
    message = event("x" * 5000).build_new()["message"]
    assert len(message) == 1024
    assert message.endswith("...")


def test_what_repeats_while_it_waits_is_counted_and_written_once() -> None:
    queue = EventQueue(10)
    queue.put(event())
    queue.put(event("other"))
    queue.put(event(seconds=5))
    first = queue.take()
    assert first is not None
    assert len(queue) == 1
    assert first.build_new()["count"] == 2
    assert first.build_new()["lastTimestamp"] == "2026-01-02T03:04:10Z"
    assert first.build_bump(3) == {"count": 5, "lastTimestamp": "2026-01-02T03:04:10Z"}


def test_a_full_queue_drops_the_oldest() -> None:
    queue = EventQueue(2)
    assert queue.put(event("1"))
    assert queue.put(event("2"))
    assert not queue.put(event("3"))
    assert [taken.build_new()["message"] for taken in iter(queue.take, None)] == ["2", "3"]

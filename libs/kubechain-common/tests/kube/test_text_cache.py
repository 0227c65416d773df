from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.kube.text_cache import Page, TextCache

PAGE = Page(None, (Message(role="user", content="hi"),))


def test_the_least_recently_used_goes_first() -> None:
    cache = TextCache(10)
    cache.put(("task", "a"), "a", 5)
    cache.put(("task", "b"), "b", 5)
    assert cache.get_text(("task", "a")) == "a"
    cache.put(("task", "c"), "c", 5)
    assert [cache.get_text(("task", key)) for key in "abc"] == ["a", None, "c"]


def test_what_belongs_to_one_task_is_not_found_for_another() -> None:
    cache = TextCache(10)
    cache.put(("task", "a"), "a", 5)
    assert cache.get_text(("other", "a")) is None


def test_a_page_is_not_taken_for_a_text() -> None:
    cache = TextCache(10)
    cache.put(("task", "a"), PAGE, 5)
    assert cache.get_text(("task", "a")) is None
    assert cache.get_page(("task", "a")) is PAGE


def test_what_is_larger_than_the_cache_takes_the_place_of_nothing() -> None:
    cache = TextCache(10)
    cache.put(("task", "a"), "a", 5)
    cache.put(("task", "b"), "b", 11)
    assert cache.get_text(("task", "a")) == "a"
    assert cache.get_text(("task", "b")) is None


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 12))))
def test_the_size_is_that_of_what_is_in_it(puts: list[tuple[str, int]]) -> None:
    cache = TextCache(20)
    latest: dict[str, int] = {}
    for key, size in puts:
        cache.put(("task", key), key, size)
        latest[key] = size
        kept = [k for k in latest if cache.get_text(("task", k)) is not None]
        assert cache.size == sum(latest[k] for k in kept) <= 20
    for key in latest:
        cache.drop(("task", key))
    assert cache.size == 0

"""What was heard of a text, in whatever order and however often, is shown once and in its order."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from kubechain_cli.taskrun.terminal import Screen, new_literal_console
from kubechain_cli.taskrun.transcript import GAP, Growth, Transcript
from kubechain_common.messages import LLMDelta
from kubechain_common.testing.arbitrary import fuzz


def delta(text: str, offset: int = 0, *, turn: int = 1, attempt: int = 1, call: int = 1) -> LLMDelta:
    return LLMDelta(turn=turn, attempt=attempt, call=call, offset=offset, text=text)


def test_text_grows_and_what_is_known_is_not_shown_again() -> None:
    transcript = Transcript()
    assert transcript.take(delta("hel")) == Growth("hel", begins=True)
    assert transcript.take(delta("lo", 3)) == Growth("lo")
    assert transcript.take(delta("hello", 0)) is None
    assert transcript.take(delta("hello you", 0)) == Growth(" you")
    assert transcript.text == "hello you"


def test_a_gap_is_a_gap() -> None:
    transcript = Transcript()
    transcript.take(delta("hel"))
    assert transcript.take(delta("you", 6)) == Growth(f"{GAP}you")
    assert transcript.take(delta("!", 9)) == Growth("!")


def test_another_attempt_begins_anew_and_the_old_one_is_over() -> None:
    transcript = Transcript()
    transcript.take(delta("hel"))
    assert transcript.take(delta("bon", attempt=2)) == Growth("bon", begins=True, attempt=2, retry=True)
    assert transcript.take(delta("lo", 3)) is None
    assert transcript.take(delta("hi", call=2, attempt=2)) == Growth("hi", begins=True, attempt=2, retry=True)
    assert transcript.take(delta("next", turn=2)) == Growth("next", begins=True)
    assert transcript.text == "next"


def test_a_message_completes_the_text_that_became_it() -> None:
    transcript = Transcript()
    assert transcript.complete(1, "hello") == ""  # nobody has begun to read it
    transcript.take(delta("hel"))
    assert transcript.complete(2, "hello") == ""
    assert transcript.complete(1, "Hello") == ""
    assert transcript.complete(1, "hello") == "lo"
    assert transcript.complete(1, "hello") == ""
    assert transcript.take(delta("lo", 3)) is None
    assert transcript.take(delta("hello", attempt=2)) is None  # of a call whose result was there before
    assert transcript.text == "hello"
    assert transcript.take(delta("next", turn=2)) == Growth("next", begins=True)


@fuzz
@given(st.text(min_size=1, max_size=30), st.data())
def test_whatever_is_repeated_the_text_is_the_text(text: str, data: st.DataObject) -> None:
    transcript = Transcript()
    heard = 0
    while heard < len(text):
        start = data.draw(st.integers(0, heard))
        end = data.draw(st.integers(start + 1, len(text)))
        transcript.take(delta(text[start:end], start))
        heard = max(heard, end)
    assert transcript.text == text


def test_steps_and_text_do_not_share_a_line() -> None:
    out = io.StringIO()
    screen = Screen(new_literal_console(out))
    screen.show("step 1")
    screen.write("hel")
    screen.write("lo [b]\x1b")
    screen.show("step 2")
    screen.write("bye\n")
    screen.end_line()
    assert out.getvalue() == "step 1\nhello [b]\nstep 2\nbye\n"

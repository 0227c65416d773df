from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.kube.backoff import Backoff, backoff_delay


@given(attempt=st.integers(0, 100_000))
def test_delay_stays_between_half_and_all_of_the_exponential_step(attempt: int) -> None:
    step = min(60.0, 0.005 * 2 ** min(attempt, 40))
    assert step / 2 <= backoff_delay(attempt, 0.005, 60.0) <= step


def test_reset_starts_over() -> None:
    backoff = Backoff(1.0, 100.0)
    grown = [backoff.next() for _ in range(5)]
    assert grown[-1] >= 8.0
    backoff.reset()
    assert backoff.next() <= 1.0

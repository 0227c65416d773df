from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kubechain_common.kube.watch import LineBuffer


@given(lines=st.lists(st.binary(min_size=1).map(lambda b: b.replace(b"\n", b"x"))), cuts=st.lists(st.integers(0, 200)))
def test_lines_come_out_whole_however_they_were_cut(lines: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in lines)
    edges = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    buffer = LineBuffer()
    chunks = [data[a:b] for a, b in pairwise(edges)]
    assert [line for chunk in chunks for line in buffer.feed(chunk)] == lines


def test_a_line_of_several_megabytes_is_put_together() -> None:
    buffer = LineBuffer()
    lines = [line for _ in range(80) for line in buffer.feed(b"x" * 65536)]
    lines += buffer.feed(b"\n\n")
    assert [len(line) for line in lines] == [80 * 65536]

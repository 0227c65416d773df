"""The cost of a turn against the length of the conversation, as a picture that needs no library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

WIDTH, HEIGHT = 760, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 28, 40
_STEPS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 500, 1000)


def draw_turns(turns: Mapping[int, float]) -> str:
    """An SVG of milliseconds by turn; the axis begins at 0, so that growth is not exaggerated."""
    last, highest = max(turns), max(turns.values())
    step = next((s for s in _STEPS if highest / s <= 6), _STEPS[-1])
    top = step * (int(highest / step) + 1)

    def x(turn: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * turn / last

    def y(ms: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ms / top

    line = " ".join(f"{x(turn):.1f},{y(ms):.1f}" for turn, ms in sorted(turns.items()))
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            _text(LEFT, 18, "milliseconds per turn (tool results of 10 KB)", "start"),
            *(_rule(y(ms), str(ms)) for ms in range(0, top + 1, step)),
            *_ticks(x, last),
            f'<polyline points="{line}" fill="none" stroke="#2563eb" stroke-width="2"/>',
            "</svg>\n",
        )
    )


def _ticks(x: Callable[[float], float], last: int) -> Iterator[str]:
    for turn in (1, *range(last // 4, last + 1, last // 4)):
        yield _text(x(turn), HEIGHT - BOTTOM + 18, f"turn {turn}" if turn == 1 else str(turn))


def _rule(y: float, label: str) -> str:
    line = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e7eb"/>'
    return line + _text(LEFT - 8, y + 4, label, "end")


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="#374151">{text}</text>'

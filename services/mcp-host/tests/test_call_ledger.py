"""What the ledger remembers of finished calls, and how much."""

from __future__ import annotations

from collections.abc import Iterable

from kubechain_common.messages import ObjectRef, ToolResult
from kubechain_common.messages.tool import ToolImage
from kubechain_common.testing.builders import NOW
from kubechain_mcp_host.calls.ledger import MAX_CHARACTERS, CallLedger


def _result(content: str = "", images: Iterable[str] = ()) -> ToolResult:
    return ToolResult(
        call=ObjectRef(namespace="default", name="call", uid="u"),
        outcome="Succeeded",
        content=content,
        images=[ToolImage(mime_type="image/png", data=data) for data in images],
        completed_at=NOW,
    )


async def _run(ledger: CallLedger, uid: str, result: ToolResult) -> bool:
    """Whether the call ran."""
    ran = False

    async def run() -> ToolResult:
        nonlocal ran
        ran = True
        return result

    await ledger.run_once(uid, run)
    return ran


async def test_a_finished_call_does_not_run_again() -> None:
    ledger = CallLedger()
    assert await _run(ledger, "a", _result("once"))
    assert not await _run(ledger, "a", _result("twice"))


async def test_results_give_way_to_later_ones_by_their_size() -> None:
    ledger = CallLedger()
    half = _result("x" * (MAX_CHARACTERS // 2))
    for uid in ("a", "b", "c"):
        await _run(ledger, uid, half)
    assert not await _run(ledger, "b", half)
    assert not await _run(ledger, "c", half)
    assert await _run(ledger, "a", half)


async def test_images_count_as_text_does() -> None:
    ledger = CallLedger()
    large = _result("[image/png]", ["x" * (MAX_CHARACTERS // 8)] * 3)
    for uid in ("a", "b", "c"):
        await _run(ledger, uid, large)
    assert not await _run(ledger, "c", large)
    assert await _run(ledger, "a", large)

"""What becomes of a message whose end and whose withdrawal come at awkward moments."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kubechain_common.messages.topology import ConsumerSpec
from kubechain_common.messaging.errors import BusUnavailableError
from kubechain_common.messaging.in_flight import Entry, InFlight
from kubechain_common.messaging.settling import Settling

SPEC = ConsumerSpec("STREAM", "durable", "s.>", 16)


@pytest.mark.parametrize("acknowledged", [True, False])
async def test_a_payload_is_deleted_once_its_message_is_acknowledged_and_not_before(acknowledged: bool) -> None:
    deleted: list[str] = []

    async def ready(_: float | None = None) -> None:
        if not acknowledged:
            raise BusUnavailableError("down")

    async def ack_sync(timeout: float) -> None: ...

    async def delete(claim: str) -> None:
        deleted.append(claim)

    bus: Any = SimpleNamespace(connection=SimpleNamespace(ready=ready), claims=SimpleNamespace(delete=delete))
    metadata = SimpleNamespace(sequence=SimpleNamespace(stream=1), timestamp=None)
    raw = SimpleNamespace(
        subject="s.1", data=b"", headers={"Kubechain-Claim": "c"}, metadata=metadata, ack_sync=ack_sync
    )
    await Settling(bus, SPEC, remembered=8).acknowledge(Entry(raw))
    assert deleted == (["c"] if acknowledged else [])


def test_a_message_that_was_withdrawn_is_not_joined_by_one_that_is_published_again() -> None:
    in_flight = InFlight()
    raw: Any = SimpleNamespace(subject="s", data=b"a", headers=None)
    first = in_flight.add_or_join(raw)
    assert first is not None
    first.withdraw()
    assert in_flight.add_or_join(raw) is not None

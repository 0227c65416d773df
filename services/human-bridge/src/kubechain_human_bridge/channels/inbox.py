"""The inbox: nobody is told. The request is found on our page, with the kubechain command and with kubectl."""

from __future__ import annotations

from kubechain_human_bridge.channels.base import Ask, OwnChannel


class InboxChannel(OwnChannel):
    """A channel that sends nothing."""

    async def validate(self) -> str:
        return "Inbox channel validated successfully"

    async def send(self, ask: Ask) -> str:
        return "Request is in the inbox"

    async def aclose(self) -> None:
        """Closes nothing: nothing is kept open."""

"""Are the ContactChannel's Secrets there, and could it reach its person? When this is asked: ``ValidatedKind``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kubechain_common.api.secret_values import SecretProblem
from kubechain_common.api.v1alpha1 import ContactChannel
from kubechain_common.api.v1alpha1.status import ReadinessStatus
from kubechain_common.kube.backoff import backoff_delay
from kubechain_common.runtime.validated_kind import Trouble, Verdict
from kubechain_common.telemetry.logging import get_logger
from kubechain_human_bridge.channels.errors import ChannelError
from kubechain_human_bridge.contactchannels.access import ChannelAccess
from kubechain_human_bridge.contactchannels.secrets import ChannelSecrets

log = get_logger(__name__)

GREETING = "Starting validation"

_FIRST_RETRY = 1.0
_LONGEST_RETRY = 60.0

StatusWriter = Callable[[ContactChannel, ReadinessStatus], Awaitable[ContactChannel]]


class ChannelValidation:
    """Asks through the very client that requests are sent with."""

    def __init__(self, access: ChannelAccess, write: StatusWriter) -> None:
        self._access = access
        self._write = write

    async def prepare(self, channel: ContactChannel) -> ChannelSecrets | Verdict:
        secrets = await self._access.read_secrets(channel)
        if isinstance(secrets, SecretProblem):
            return Verdict("Error", "SecretValidationFailed", secrets.detail)
        return secrets

    async def ask(self, channel: ContactChannel, secrets: ChannelSecrets) -> str | Trouble:
        try:
            async with self._access.open_with(channel, secrets) as client:
                return await client.validate()
        except ChannelError as error:
            if error.retryable:
                log.warning(
                    "validation failed, retrying", namespace=channel.namespace, channel=channel.name, error=str(error)
                )
            return Trouble(str(error), error.retryable, error.retry_after)

    def retry_delay(self, failures: int, retry_after: float | None) -> float:
        return max(backoff_delay(failures - 1, _FIRST_RETRY, _LONGEST_RETRY), min(retry_after or 0.0, _LONGEST_RETRY))

    async def write(self, channel: ContactChannel, status: ReadinessStatus) -> None:
        await self._write(channel, status)
        log.info("channel judged", namespace=channel.namespace, channel=channel.name, detail=status.status_detail)

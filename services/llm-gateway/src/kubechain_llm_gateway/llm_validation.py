"""Is the LLM's spec usable, is the key there, does the provider accept it? When this is asked: ``ValidatedKind``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from kubechain_common.api.secret_values import SecretProblem
from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.status import ReadinessStatus
from kubechain_common.runtime.validated_kind import Trouble, Verdict
from kubechain_common.telemetry.logging import get_logger
from kubechain_llm_gateway.admission.circuit import Circuit, circuit_of
from kubechain_llm_gateway.admission.fallback_calls import FallbackCalls
from kubechain_llm_gateway.admission.health_board import HealthBoard
from kubechain_llm_gateway.admission.retry_policy import RetryPolicy
from kubechain_llm_gateway.llms.access import LLMAccess, LLMNotUsableError
from kubechain_llm_gateway.llms.credentials import Credentials
from kubechain_llm_gateway.llms.decision import check_configuration, explain, explain_fallback, explain_unavailable
from kubechain_llm_gateway.providers.errors import ProviderError

log = get_logger(__name__)

_RETRIES = RetryPolicy(longest_asked=60.0)

StatusWriter = Callable[[LLM, ReadinessStatus], Awaitable[LLM]]


class LLMValidation:
    """Asks the provider with the very client that calls are made with."""

    def __init__(self, access: LLMAccess, board: HealthBoard, fallbacks: FallbackCalls, write: StatusWriter) -> None:
        self._access = access
        self._board = board
        self._fallbacks = fallbacks
        self._write = write

    async def prepare(self, llm: LLM) -> Credentials | Verdict:
        problem = check_configuration(llm)
        if problem is not None:
            return Verdict("Error", "ValidationFailed", problem)
        credentials = await self._access.read_credentials(llm)
        if isinstance(credentials, SecretProblem):
            return Verdict("Error", "SecretValidationFailed", credentials.detail)
        health = self._board.get(llm.uid)
        if circuit_of(health, llm.metadata.generation) is Circuit.OPEN:
            return self._judge_unavailable(llm, health.reason)
        return credentials

    def _judge_unavailable(self, llm: LLM, reason: str) -> Verdict:
        """An LLM with a fallback that is ready can be used all the same."""
        fallback = next((other for other in self._fallbacks.find(llm) if other.status.ready), None)
        if fallback is not None:
            return Verdict("Ready", "UsingFallback", explain_fallback(llm, reason, fallback))
        return Verdict("Error", "ProviderUnavailable", explain_unavailable(llm, reason))

    async def ask(self, llm: LLM, secrets: Credentials) -> str | Trouble:
        try:
            return (await (await self._access.provider_for(llm, secrets)).validate()).detail
        except LLMNotUsableError as error:
            return Trouble(str(error), retryable=False)
        except ProviderError as error:
            if error.retryable:
                log.warning(
                    "llm validation failed, retrying", namespace=llm.namespace, llm=llm.name, error=error.message
                )
            return Trouble(explain(llm, error), error.retryable, error.retry_after)

    def retry_delay(self, failures: int, retry_after: float | None) -> float:
        return _RETRIES.delay(failures, retry_after)

    async def write(self, llm: LLM, status: ReadinessStatus) -> None:
        await self._write(llm, status)
        log.info("llm judged", namespace=llm.namespace, llm=llm.name, status=status.status, detail=status.status_detail)

"""The way from an LLM to a client that can be called: its spec, its Secret, its provider.

One client is kept per LLM, for as long as neither the spec nor the key changes; so a rotated key counts from the next
call on. What stands in the way of a call is an ``LLMNotUsableError`` with a sentence, and ``changed`` tells when it is
worth another look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from kubechain_common.api.secret_values import SecretProblem
from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.api.v1alpha1.llm import LLMSpec
from kubechain_common.kube.errors import ForbiddenError
from kubechain_common.messages import ObjectRef
from kubechain_common.runtime.pulse import Pulse
from kubechain_llm_gateway.llms.credentials import Credentials, resolve_credentials, secret_of
from kubechain_llm_gateway.llms.decision import check_configuration
from kubechain_llm_gateway.providers.base import Provider


class LLMNotUsableError(Exception):
    """The LLM cannot be called as it is; the text says what to do about it."""


class LLMStore(Protocol):
    """The informer's view of LLMs."""

    def get(self, namespace: str, name: str) -> LLM | None: ...


class SecretStore(Protocol):
    """The watched Secrets; None is a Secret that does not exist."""

    async def read(self, namespace: str, name: str) -> Mapping[str, str] | None: ...


class ProviderBuilder(Protocol):
    """Makes a client; see ``providers.registry``."""

    async def build(self, spec: LLMSpec, api_key: str | None) -> Provider: ...


@dataclass(frozen=True)
class _Client:
    generation: int
    digest: str
    provider: Provider


class LLMAccess:
    """Finds LLMs, their keys and their clients. Changes of either are reported to it by ``notify_changed``."""

    def __init__(self, llms: LLMStore, secrets: SecretStore, providers: ProviderBuilder) -> None:
        self._llms = llms
        self._secrets = secrets
        self._providers = providers
        self._clients: dict[str, _Client] = {}
        self._changes = Pulse()

    def find(self, ref: ObjectRef) -> LLM | None:
        """The very LLM of ``ref``, not a later one of the same name."""
        llm = self._llms.get(ref.namespace, ref.name)
        return llm if llm is not None and llm.uid == ref.uid else None

    async def read_credentials(self, llm: LLM) -> Credentials | SecretProblem:
        """The LLM's key.

        Raises:
            KubeError: the Secret is not watched yet and the API server could not be asked for it.
        """
        name = secret_of(llm)
        try:
            return resolve_credentials(llm, await self._secrets.read(*name) if name else None)
        except ForbiddenError:
            return SecretProblem(
                f'llm-gateway may not read Secret "{name[1] if name else ""}": grant it get and watch on secrets'
            )

    async def open_provider(self, llm: LLM) -> Provider:
        """The client for the LLM as it is now.

        Raises:
            LLMNotUsableError: its spec or its Secret does not allow a call.
            KubeError: the API server could not be asked for the Secret.
        """
        problem = check_configuration(llm)
        if problem is not None:
            raise LLMNotUsableError(problem)
        credentials = await self.read_credentials(llm)
        if isinstance(credentials, SecretProblem):
            raise LLMNotUsableError(credentials.detail)
        return await self.provider_for(llm, credentials)

    async def provider_for(self, llm: LLM, credentials: Credentials) -> Provider:
        """The client for a usable LLM with its key. Raises LLMNotUsableError where the SDK takes no such spec."""
        generation, digest = llm.metadata.generation, credentials.digest
        known = self._clients.get(llm.uid)
        if known is None or (known.generation, known.digest) != (generation, digest):
            # The client it replaces may be in use; it holds nothing but its key, so it is dropped, not closed.
            known = _Client(generation, digest, await self._build(llm.spec, credentials.api_key))
            self._clients[llm.uid] = known
        return known.provider

    async def _build(self, spec: LLMSpec, api_key: str | None) -> Provider:
        try:
            return await self._providers.build(spec, api_key)
        except Exception as error:
            raise LLMNotUsableError(_explain_refusal(error)) from error

    def forget(self, uid: str) -> None:
        """Forgets the client of an LLM that is gone."""
        self._clients.pop(uid, None)
        self.notify_changed()

    def notify_changed(self) -> None:
        """Tells those who wait that an LLM or a Secret has changed."""
        self._changes.beat()

    @property
    def changed(self) -> asyncio.Event:
        """Set by the next change of any LLM or Secret."""
        return self._changes.next


def _explain_refusal(error: Exception) -> str:
    """The sentence for an address that the API server takes and an HTTP client does not; any other text might quote the
    key.
    """
    if type(error).__name__ == "InvalidURL":
        return f"parameters.baseUrl can not be used: {error}"
    return f"no client can be made of this LLM's spec and key ({type(error).__name__})"

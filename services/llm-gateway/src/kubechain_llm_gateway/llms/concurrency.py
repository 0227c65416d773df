"""How many calls of an LLM are made at a time, over all replicas. Pure."""

from __future__ import annotations

from kubechain_common.api.v1alpha1 import LLM
from kubechain_common.messages.topology import LLM_MAX_IN_FLIGHT


def concurrency_of(llm: LLM) -> int:
    return llm.spec.max_concurrency or LLM_MAX_IN_FLIGHT

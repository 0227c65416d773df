"""What ``spec.resources.limits`` of an MCPServer comes to, in bytes and cores (pure)."""

from __future__ import annotations

from fractions import Fraction

from kubechain_common.api.v1alpha1 import MCPServer
from kubechain_common.api.v1alpha1.mcpserver import MIN_CPU, MIN_MEMORY
from kubechain_mcp_host.errors import InvalidSpecError
from kubechain_mcp_host.spec.quantity import parse_quantity


def read_limits(server: MCPServer) -> tuple[int, float]:
    """Memory and CPU; 0 is no limit. Raises InvalidSpecError for what the API server let pass in earlier days."""
    resources = server.spec.resources
    limits = resources.limits if resources is not None else None
    if limits is None:
        return 0, 0.0
    memory = _read("memory", limits.memory, MIN_MEMORY, "512Mi or 1Gi")
    return int(memory), float(_read("cpu", limits.cpu, MIN_CPU, "500m or 2"))


def _read(name: str, value: int | str | None, least: str, example: str) -> Fraction:
    if value is None:
        return Fraction(0)
    field = f"Validation failed: spec.resources.limits.{name}"
    try:
        quantity = parse_quantity(value)
    except ValueError as error:
        raise InvalidSpecError(f"{field}: {error}; write {example}, say.") from None
    if quantity < parse_quantity(least):
        raise InvalidSpecError(f'{field}: "{value}" is less than {least}; write {example}, say.')
    return quantity

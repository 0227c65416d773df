"""Money: what tokens cost, and sums of it. Decimals are strings, because Kubernetes APIs avoid floats.

Every amount is exact: it is calculated with ``decimal.Decimal`` and never rounded.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from kubechain_common.api.v1alpha1.meta import KubeModel
from kubechain_common.api.v1alpha1.rules import cel_matches, validations

DEFAULT_CURRENCY = "USD"

_CURRENCY = "^[A-Z]{3}$"
_AMOUNT = r"^[0-9]{1,9}(\.[0-9]{1,9})?$"
_SUM = r"^[0-9]+(\.[0-9]+)?$"


def _told_by_a_rule(pattern: str, message: str, max_length: int) -> Any:
    """A pattern that the model checks too, because it is calculated with; a rule says it in words."""

    def put_rule(schema: dict[str, Any]) -> None:
        del schema["pattern"]
        schema |= validations(cel_matches(pattern, message))

    return Field(pattern=pattern, max_length=max_length, json_schema_extra=put_rule)


def amount(what: str) -> Any:
    """Field of an amount that a user gives."""
    return _told_by_a_rule(_AMOUNT, f'{what} is a decimal number in quotes, like "2.50"', 19)


CurrencyCode = Annotated[str, _told_by_a_rule(_CURRENCY, "currency is three capital letters, like USD", 3)]

Sum = Annotated[str, Field(pattern=_SUM, max_length=64)]
"""An amount that we add up, of any length."""

Currency = Annotated[str, Field(max_length=3)]


class LLMPrices(KubeModel):
    """What a million tokens of an LLM cost; a price that is absent is that of other input tokens."""

    currency: Annotated[CurrencyCode, Field(description="Three letters of ISO 4217. Absent: USD.")] | None = None
    input_per_million: Annotated[
        str,
        amount("inputPerMillion"),
        Field(description="Price of a million tokens that the model reads: a decimal in quotes, up to nine places."),
    ]
    cached_input_per_million: (
        Annotated[
            str,
            amount("cachedInputPerMillion"),
            Field(description="Price of a million tokens read from the provider's cache. Absent: inputPerMillion."),
        ]
        | None
    ) = None
    cache_write_per_million: (
        Annotated[
            str,
            amount("cacheWritePerMillion"),
            Field(description="Price of a million tokens written to the provider's cache. Absent: inputPerMillion."),
        ]
        | None
    ) = None
    output_per_million: Annotated[
        str, amount("outputPerMillion"), Field(description="Price of a million tokens that the model writes.")
    ]

"""Arguments that a person puts in place of the model's: checked before they use up the one answer that counts. Pure."""

from __future__ import annotations

import json
from typing import Any


class EditedArgumentsError(ValueError):
    """What is wrong with the arguments, in a sentence for whoever wrote them."""


def read_edited(given: str | dict[str, Any]) -> str:
    """The JSON text of edited arguments, as it was written. Raises EditedArgumentsError."""
    if isinstance(given, dict):
        given = json.dumps(given, ensure_ascii=False)
    try:
        parsed = json.loads(given, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise EditedArgumentsError(f"The arguments are not valid JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise EditedArgumentsError("The arguments have to be a JSON object.")
    return given


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")

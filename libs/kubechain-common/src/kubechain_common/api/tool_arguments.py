"""Arguments of a tool call: what mcp-host can hand to a server, for it and for whoever puts others in their place.

Python's parser takes more than JSON: NaN and Infinity, numbers that become Infinity, and halves of characters, which no
server could be sent.
"""

from __future__ import annotations

import json
import math
from typing import Any

from kubechain_common.api.unicode_text import mend


class InvalidArgumentsError(ValueError):
    """The text is no JSON object; a sentence that says where and why."""


def read_arguments(text: str) -> dict[str, Any]:
    """The arguments in a JSON text. Raises InvalidArgumentsError."""
    try:
        arguments = load_json(text)
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidArgumentsError("The arguments hold half a surrogate pair, which is no character.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentsError(f"The arguments are not valid JSON: {error}.") from None
    if not isinstance(arguments, dict):
        raise InvalidArgumentsError(f"The arguments have to be a JSON object, not {_json_type(arguments)}.")
    return arguments


def read_question(text: str) -> str:
    """What a call asks a person: the ``message`` in its arguments, or the arguments as they are where there is none."""
    try:
        arguments = json.loads(text)
    except (ValueError, RecursionError):
        return text
    message = arguments.get("message") if isinstance(arguments, dict) else None
    return mend(message) if isinstance(message, str) else text


def load_json(text: str) -> Any:
    """The value of a JSON text that holds no constant or number which is none in JSON.

    Raises ValueError, or RecursionError where it is nested too deeply.
    """
    return json.loads(text, parse_constant=_refuse_constant, parse_float=_read_finite)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _read_finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text} is out of range")
    return number


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")

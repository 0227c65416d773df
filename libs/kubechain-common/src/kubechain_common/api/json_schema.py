"""What a JSON schema and a value that breaks it have to say to people and to models.

``jsonschema`` is not imported here: it costs an idle service some megabytes, and who checks something has imported it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from kubechain_common.api.unicode_text import mend

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_MAX_SHOWN = 200


class TooMuchWorkError(Exception):
    """The check was given up, because it takes longer than anybody may wait for it."""


class WorkCounter:
    """Counts the work of one check, and ends a check that does too much: a few lines of schema can ask for years of
    work.
    """

    def __init__(self, limit: int) -> None:
        self.count = 0
        self._limit = limit

    def bound(self, check: Any) -> Any:
        """A keyword's check, which raises TooMuchWorkError once all bound checks together were made more often than the
        limit.
        """

        def check_bounded(*args: Any) -> Iterator[ValidationError]:
            self.count += 1
            if self.count > self._limit:
                raise TooMuchWorkError
            yield from check(*args) or ()

        return check_bounded


def hold_everywhere(validators: Any) -> Any:
    """The class of validators, which checks all parts of a schema from here on. jsonschema takes one of its own for
    each part that names a dialect by a ``$schema``, without whatever bounds this one has.
    """
    validators.evolve = _evolve
    return validators


def _evolve(validator: Any, **changes: Any) -> Any:
    kept = {field.alias: getattr(validator, field.name) for field in validator.__attrs_attrs__ if field.init}
    return type(validator)(**{**kept, **changes})


def describe_problem(error: ValidationError, whole: str) -> str:
    """One problem in words that name the field; jsonschema's own repeat the whole value, however large.

    ``whole`` names what is checked: "the arguments". What is quoted of it may hold half characters: JSON in plain ASCII
    can spell them, but nobody can be sent them.
    """
    return mend(_describe(error, whole))


def _describe(error: ValidationError, whole: str) -> str:
    where, limit, value = _path(error, whole), error.validator_value, error.instance
    match error.validator:
        case "required":
            missing = ", ".join(f'"{name}"' for name in limit if name not in value)
            return f"{missing} missing in {where}"
        case "type":
            wanted = " or ".join(limit) if isinstance(limit, list) else limit
            return f"{where} must be of type {wanted}, not {_show(value)}"
        case "enum":
            return f"{where} must be one of {_show(limit)}, not {_show(value)}"
        case "additionalProperties" if limit is False:
            known = dict(error.schema).get("properties", {}) if isinstance(error.schema, Mapping) else {}
            unknown = ", ".join(f'"{name}"' for name in value if name not in known)
            return f"{unknown} not known in {where} (known: {', '.join(known) or 'none'})"
        case "anyOf" | "oneOf":
            return f"{where} fits none of what is allowed there: {_show(value)}"
        case _:
            return f"{where} must have {error.validator} {_show(limit)}, and is {_show(value)}"


def _path(error: ValidationError, whole: str) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in error.absolute_path)
    return f'"{path.removeprefix(".")}"' if path else whole


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."

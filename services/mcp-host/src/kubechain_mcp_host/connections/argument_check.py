"""Whether a call's arguments fit the schema that its tool declares (pure).

Checked before the tool is started: a model that reads which field is wrong puts it right in its next turn, and nothing
has run. A schema comes from a server that may be anybody's and is used in a process that serves everybody: nothing is
fetched for it, and regular expressions, with all that is defined through them, are left for the server to check. So
is whatever turns "not checked here" into a refusal (``not``, ``if``), and a schema that is too large, or whose
references lead to so many others that it would never be done. When in doubt the arguments fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from kubechain_common.api.json_schema import TooMuchWorkError, WorkCounter, describe_problem, hold_everywhere

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError
    from jsonschema.protocols import Validator

MAX_PROBLEMS = 5
_MAX_ERRORS = 100
_MAX_WORK = 50_000
"""Keywords looked at in one check, and in that of the schema itself: half a second. A few lines of references that
double at each step would else take years.
"""
_LEFT_TO_THE_SERVER = (
    "pattern",
    "patternProperties",
    "unevaluatedProperties",
    "unevaluatedItems",
    "uniqueItems",
    "not",
    "if",
    "contains",
    "$dynamicRef",
    "$recursiveRef",
)


class ArgumentCheck:
    """The check of one tool's arguments; making one costs far more than using it."""

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self._work = WorkCounter(_MAX_WORK)
        self._validator = _build_validator(schema, self._work) if schema else None

    def find_problems(self, arguments: Mapping[str, Any]) -> str:
        """What is wrong, field by field; empty if nothing is, or if the schema itself can not be used."""
        if self._validator is None:
            return ""
        self._work.count = 0
        try:
            errors = islice(self._validator.iter_errors(arguments), _MAX_ERRORS)
            problems = list(dict.fromkeys(describe_problem(error, "the arguments") for error in errors))
        except Exception:  # a reference that leads nowhere, a schema that contains itself: the server knows better
            return ""
        return "; ".join(problems[:MAX_PROBLEMS]) + ("; and more" if len(problems) > MAX_PROBLEMS else "")


def _build_validator(schema: Mapping[str, Any], work: WorkCounter) -> Validator | None:
    # Imported when first needed: it costs an idle service some megabytes.
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing import Registry

    dialect = validator_for({"$schema": str(schema.get("$schema", ""))}, default=Draft202012Validator)
    try:
        # In some dialects all items of an enum are compared with all.
        checks = {**dialect.VALIDATORS, "uniqueItems": _skip}
        meta = _bound(dialect, checks, work)(dialect.META_SCHEMA, format_checker=dialect.FORMAT_CHECKER)
        if not meta.is_valid(schema):
            return None
    except (TooMuchWorkError, RecursionError):
        return None
    bounded = _bound(dialect, _bounded_checks(dialect), work)
    validator: Validator = bounded(schema, registry=Registry())  # an empty one: nothing is fetched
    return validator


def _bound(dialect: Any, checks: Mapping[str, Any], work: WorkCounter) -> Any:
    from jsonschema.validators import extend

    return hold_everywhere(extend(dialect, {keyword: work.bound(check) for keyword, check in checks.items()}))


@lru_cache(maxsize=16)
def _bounded_checks(base: Any) -> Mapping[str, Any]:
    checks = dict.fromkeys(_LEFT_TO_THE_SERVER, _skip)
    # That no second branch fits can not be said of branches that are checked in part.
    checks["oneOf"] = base.VALIDATORS.get("anyOf", _skip)
    checks["additionalProperties"] = _unless_by_pattern(base.VALIDATORS["additionalProperties"])
    return {**base.VALIDATORS, **checks}


def _skip(*_: Any) -> Iterator[ValidationError]:
    return iter(())


def _unless_by_pattern(check: Any) -> Any:
    """The check, which lets a schema with patternProperties pass: what is additional depends on its expressions."""

    def check_additional(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
        if "patternProperties" not in schema:
            yield from check(validator, allowed, instance, schema)

    return check_additional

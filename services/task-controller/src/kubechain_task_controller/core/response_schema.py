"""The JSON schema of an Agent's answers: whether it can be used, and whether an answer fits it (pure).

Both come from users and are used in the one process that serves everybody, so a check may neither take long nor ask
anybody: what can not be bounded (regular expressions, the comparison of all items with all) is refused when the Agent
is looked at, and a check that goes on for too long is given up. Nothing is left out silently.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from kubechain_common.api.json_schema import TooMuchWorkError, WorkCounter, describe_problem, hold_everywhere

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

MAX_SCHEMA_BYTES = 32 * 1024
_MAX_DEPTH = 64
_MAX_WORK = 25_000
"""Keywords checked for one answer, half a second at the most."""
_MAX_ERRORS = 100
_MAX_PROBLEMS = 5
_REFUSED = (
    "pattern",
    "patternProperties",
    "uniqueItems",
    "unevaluatedProperties",
    "unevaluatedItems",
    "$dynamicRef",
    "$recursiveRef",
)
_MAPS_OF_SCHEMAS = ("properties", "$defs", "definitions", "dependentSchemas")
_SCHEMAS = (
    "items",
    "additionalProperties",
    "additionalItems",
    "propertyNames",
    "contains",
    "not",
    "if",
    "then",
    "else",
)
_LISTS_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")

TOO_MUCH = "it is too large to be checked"


def find_schema_problem(schema: Mapping[str, Any]) -> str:
    """Why the schema can not be used; empty if it can."""
    try:
        text = json.dumps(schema)
    except (ValueError, RecursionError):
        return "it is nested too deeply"
    size = len(text.encode())
    if size > MAX_SCHEMA_BYTES:
        return f"it has {size:,} bytes, and {MAX_SCHEMA_BYTES:,} is the most"
    return _find_schema_problem(text)


def find_answer_problem(schema: Mapping[str, Any], answer: str) -> str:
    """Why the answer does not fit, field by field; empty if it fits. The schema is one that can be used."""
    try:
        value = json.loads(answer, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return f"it is not valid JSON ({_shorten_error(error)})"
    validator, work = _build_validator(json.dumps(schema))
    work.count = 0
    try:
        errors = islice(validator.iter_errors(value), _MAX_ERRORS)
        problems = list(dict.fromkeys(describe_problem(error, "the answer") for error in errors))
    except (TooMuchWorkError, RecursionError):
        return TOO_MUCH
    except Exception as error:  # what jsonschema makes of a schema is not ours to foresee
        return f"it can not be checked ({type(error).__name__})"
    return "; ".join(problems[:_MAX_PROBLEMS]) + ("; and more" if len(problems) > _MAX_PROBLEMS else "")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _shorten_error(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]


@lru_cache(maxsize=64)
def _find_schema_problem(text: str) -> str:
    schema = json.loads(text)
    try:
        for part in _walk(schema, 0):
            problem = _find_unfit_keyword(part, schema)
            if problem:
                return problem
        for error in _build_meta_validator(schema).iter_errors(schema):
            return describe_problem(error, "the schema")
    except RecursionError:
        return "it is nested too deeply"
    except Exception as error:  # a $schema that is no text, for instance
        return f"it is no JSON schema ({type(error).__name__})"
    return ""


def _find_unfit_keyword(part: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    for keyword in _REFUSED:
        if keyword in part:
            return f"{keyword} is not supported: leave it out"
    reference = part.get("$ref")
    if reference is not None and not _is_found(reference, root):
        return f'$ref "{str(reference)[:100]}" names nothing in the schema itself'
    return ""


def _is_found(reference: Any, root: Any) -> bool:
    """Whether it is ``#`` or a JSON pointer (RFC 6901) to a place in the schema."""
    if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
        return False
    at = root
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(at, Mapping) and name in at:
            at = at[name]
        elif isinstance(at, list) and name.isdecimal() and int(name) < len(at):
            at = at[int(name)]
        else:
            return False
    return isinstance(at, Mapping | bool)


def _walk(schema: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """The schema and all schemas in it, but not what only looks like one, such as a property named "pattern"."""
    if not isinstance(schema, Mapping):
        return
    if depth > _MAX_DEPTH:
        raise RecursionError
    yield schema
    inner = [schema[key] for key in _SCHEMAS if key in schema]
    for key in _MAPS_OF_SCHEMAS:
        inner += schema[key].values() if isinstance(schema.get(key), Mapping) else []
    for key in _LISTS_OF_SCHEMAS:
        inner += schema[key] if isinstance(schema.get(key), list) else []
    for part in inner:
        yield from _walk(part, depth + 1)


def _build_meta_validator(schema: Mapping[str, Any]) -> Validator:
    """Of schemas in its dialect. In some dialects all items of an enum would be compared with all."""
    from jsonschema.validators import extend

    kind = _validator_class(schema)
    extended = hold_everywhere(extend(kind, {"uniqueItems": lambda *_: iter(())}))
    validator: Validator = extended(kind.META_SCHEMA, format_checker=kind.FORMAT_CHECKER)
    return validator


@lru_cache(maxsize=64)
def _build_validator(text: str) -> tuple[Validator, WorkCounter]:
    from jsonschema.validators import extend
    from referencing import Registry

    schema = json.loads(text)
    kind, work = _validator_class(schema), WorkCounter(_MAX_WORK)
    checks = {keyword: work.bound(check) for keyword, check in kind.VALIDATORS.items()}
    # A reference may lead to where no schema was looked for.
    bounded = hold_everywhere(extend(kind, {**checks, **dict.fromkeys(_REFUSED, _give_up)}))
    validator: Validator = bounded(schema, registry=Registry())  # an empty one: nothing is fetched
    return validator, work


def _give_up(*_: Any) -> Any:
    raise TooMuchWorkError


def _validator_class(schema: Mapping[str, Any]) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    return validator_for(schema, default=Draft202012Validator)

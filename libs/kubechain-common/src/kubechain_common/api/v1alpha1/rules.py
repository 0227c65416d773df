"""Validation rules in CEL, which the CRDs carry.

They are the API server's alone: the models take what breaks them, because an object that is older than a rule is served
all the same.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
"""

from __future__ import annotations

from typing import Any

Rule = dict[str, Any]
"""One x-kubernetes-validations entry."""


def cel(rule: str, message: str, *, field: str = "") -> Rule:
    """``field`` is what the rule speaks of, seen from where it stands."""
    return {"rule": rule, "message": message} | ({"fieldPath": f".{field}"} if field else {})


def cel_all(*checks: Rule, message: str, field: str = "") -> Rule:
    """One rule out of several, which refuses in the words of those that are broken (``message``: should that fail)."""
    complaints = " + ".join(f"(({check['rule']}) ? '' : {_literal('; ' + check['message'])})" for check in checks)
    return {
        **cel(" && ".join(f"({check['rule']})" for check in checks), message, field=field),
        # A list with join() would be shorter, but the API server's estimate of what that costs is infinite.
        "messageExpression": f"({complaints}).substring(2)",
    }


def unless(condition: str, rule: Rule, *, optional_old_self: bool = False) -> Rule:
    """The rule, with a cheap way out for the writes that do not concern it.

    Every write, of a status too, makes the API server evaluate every rule of the object, and each look at a field of
    an object with ten takes it 3 to 15 µs.

    A rule that speaks of ``oldSelf`` is for updates only. With ``optional_old_self`` it is for creations too, and
    ``oldSelf`` an optional; its messages do without it, because the API server does not hand it to them.
    """
    optional = {"optionalOldSelf": True} if optional_old_self else {}
    return {**rule, "rule": f"{condition} || ({rule['rule']})", **optional}


def at_creation(rule: Rule) -> Rule:
    """The rule for what another rule keeps from changing later."""
    return unless("oldSelf.hasValue()", rule, optional_old_self=True)


def immutable(field: str, advice: str = "") -> Rule:
    """The transition rule of a field that is set at creation or never."""
    return cel(
        f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        f"{field} is immutable{advice}",
    )


def stays_true(field: str, message: str) -> Rule:
    """The transition rule of a switch that can not be taken back."""
    return cel(f"!oldSelf.?{field}.orValue(false) || self.?{field}.orValue(false)", message)


def validations(*rules: Rule) -> dict[str, Any]:
    """json_schema_extra that carries CEL rules into the CRD."""
    return {"x-kubernetes-validations": list(rules)}


def cel_matches(pattern: str, message: str, *, field: str = "") -> Rule:
    """A rule in place of a ``pattern``, whose refusal would be the bare regular expression."""
    return cel(f"self{'.' if field else ''}{field}.matches({_literal(pattern)})", message, field=field)


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

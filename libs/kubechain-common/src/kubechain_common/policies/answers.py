"""An answer is given by whoever may decide, in that person's own name.

``spec.decision`` and ``spec.response`` of a TaskRunToolCall take two rights beside ``patch``: ``decide`` to answer at
all, and ``decide-for`` to answer in somebody else's name, which is for human-bridge and toolcall-controller: they write
down what a mail, a Slack button or the deadline said. A bare ``kubectl patch`` says neither who nor when, so a mutating
policy fills both in: the user of the request, and the API server's own time, which it has noted in managedFields by
then. What a person gives of these must be true: there the same time bounds ``at``. All conditions look at the two
fields alone, so that every other write (the status above all) is none of these policies' business.

https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
"""

from __future__ import annotations

from textwrap import dedent
from typing import Any

from kubechain_common.api.v1alpha1 import TaskRunToolCall
from kubechain_common.api.v1alpha1.meta import GROUP

API_VERSION = "admissionregistration.k8s.io/v1"
VALIDATION = "kubechain-answers-are-allowed"
SIGNING = "kubechain-answers-are-signed"
DECIDE = "decide"
"""Verb on taskruntoolcalls: to approve, reject and answer."""
DECIDE_FOR = "decide-for"
"""Verb on taskruntoolcalls: to write down somebody else's answer."""

_CLOCK_SKEW = "5m"

_ANSWER_GIVEN = {
    "name": "an-answer-is-given",
    "expression": dedent("""\
        oldObject == null
          ? has(object.spec.decision) || has(object.spec.response)
          : object.spec.?decision != oldObject.spec.?decision || object.spec.?response != oldObject.spec.?response
    """),
}
# A field that has an owner since this very request: the API server notes owner and time before it asks any policy.
_NOW = {
    "name": "now",
    "expression": dedent("""\
        object.metadata.?managedFields.orValue([]).filter(m, has(m.time) && 'f:spec' in m.fieldsV1
          && ('f:decision' in m.fieldsV1['f:spec'] || 'f:response' in m.fieldsV1['f:spec'])).map(m, m.time)
    """),
}
_USER = "request.userInfo.username"


def build_answer_signing() -> list[dict[str, Any]]:
    """The policy that fills in who answers and when, with its binding."""
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": _match_calls(),
        "matchConditions": [_ANSWER_GIVEN],
        "variables": [_NOW],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": _FILL_IN}}],
    }
    return _with_binding("MutatingAdmissionPolicy", SIGNING, spec, {})


_FILL_IN = dedent(f"""\
    ['decision', 'response'].filter(f, f in object.spec && !('by' in object.spec[f]))
      .map(f, JSONPatch{{op: 'add', path: '/spec/' + f + '/by', value: {_USER}}})
    + ['decision', 'response'].filter(f, f in object.spec && !('at' in object.spec[f]) && size(variables.now) > 0)
      .map(f, JSONPatch{{op: 'add', path: '/spec/' + f + '/at', value: variables.now[0]}})
""")


def build_answer_validation() -> list[dict[str, Any]]:
    """The policy that refuses an answer of somebody who may not give it, or that is not what it says it is."""
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": _match_calls(),
        "matchConditions": [_ANSWER_GIVEN],
        "variables": [
            _NOW,
            {"name": "answers", "expression": "[object.spec.?decision, object.spec.?response].filter(a, a.hasValue())"},
            {"name": "mayDecide", "expression": _authorized(DECIDE)},
            {"name": "mayDecideForOthers", "expression": _authorized(DECIDE_FOR)},
        ],
        "validations": [
            _validation(
                "variables.mayDecide || variables.mayDecideForOthers",
                f"{_USER} + ' may not answer tool calls in namespace ' + request.namespace + ': that takes the verb"
                f" {DECIDE} on taskruntoolcalls, which the ClusterRole kubechain-approver has'",
            ),
            _validation(
                "variables.answers.all(a, a.value().?by.orValue('') != '')",
                f"'an answer says who gives it: set by to ' + {_USER}",
            ),
            _validation(
                f"variables.mayDecideForOthers || variables.answers.all(a, a.value().?by.orValue('') == {_USER})",
                f"'by has to be ' + {_USER} + ', who gives this answer: leave it out, or get the verb {DECIDE_FOR}"
                " on taskruntoolcalls'",
            ),
            _validation(
                "variables.mayDecideForOthers || variables.answers.all(a, a.value().?via.orValue('cli') == 'cli')",
                "'via may be cli or absent: who answers by another road has no need to say so'",
            ),
            _validation(
                "variables.mayDecideForOthers || variables.answers.all(a, !has(a.value().at)"
                " || size(variables.now) > 0 && timestamp(a.value().at) - timestamp(variables.now[0])"
                f" < duration('{_CLOCK_SKEW}') && timestamp(variables.now[0]) - timestamp(a.value().at)"
                f" < duration('{_CLOCK_SKEW}'))",
                "'at has to be the time of now, within 5 minutes: leave it out'",
            ),
        ],
    }
    return _with_binding("ValidatingAdmissionPolicy", VALIDATION, spec, {"validationActions": ["Deny"]})


def _validation(expression: str, message: str) -> dict[str, str]:
    return {"expression": expression, "messageExpression": message, "reason": "Forbidden"}


def _authorized(verb: str) -> str:
    call = f"resource('{TaskRunToolCall.crd.plural}').namespace(request.namespace).name(request.name)"
    return f"authorizer.group('{GROUP}').{call}.check('{verb}').allowed()"


def _match_calls() -> dict[str, Any]:
    rule = {
        "apiGroups": [GROUP],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE"],
        "resources": [TaskRunToolCall.crd.plural],
    }
    return {"resourceRules": [rule]}


def _with_binding(kind: str, name: str, spec: dict[str, Any], binding: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec},
        {
            "apiVersion": API_VERSION,
            "kind": f"{kind}Binding",
            "metadata": {"name": name},
            "spec": {"policyName": name, **binding},
        },
    ]

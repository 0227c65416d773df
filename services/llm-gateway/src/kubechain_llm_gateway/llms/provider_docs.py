"""The generated part of docs/providers.md: which parameter reaches which provider, from ``parameter_support``.

python -m kubechain_llm_gateway.llms.provider_docs docs/providers.md [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from kubechain_common.crdgen.__main__ import run_on_file
from kubechain_common.crdgen.pages import build_table, put_into
from kubechain_llm_gateway.llms.parameter_support import MODEL_RULES, PARAMETERS, SETTINGS, SUPPORT, Sent, Support

COMMAND = "make crds"


def render() -> str:
    """Everything between the two marks."""
    by_target = build_table(
        ["`parameters.`", *SUPPORT],
        ([f"`{name}`", *(_cell(row[name]) for row in SUPPORT.values())] for name in PARAMETERS),
    )
    others = build_table(["field", "how it is sent"], ([f"`{field}`", how] for field, how in SETTINGS.items()))
    rules = build_table(["models", "of", "do not take"], _rule_rows())
    return "\n\n".join(
        [by_target, "Models that take less than their provider does:", rules, "The other fields of a spec:", others]
    )


def _cell(support: Support) -> str:
    if not isinstance(support, Sent):
        return "refused"
    return f"`{support.field}`" + ("" if support.most is None else f", up to {support.most:g}")


def _rule_rows() -> Iterable[list[str]]:
    for rule in MODEL_RULES:
        names = [f"`{name}`" for name in rule.parameters]
        what = " together with ".join(names) if rule.together else " or ".join(names)
        if rule.harmless is not None:
            what += f" other than {rule.harmless:g}"
        yield [rule.models, ", ".join(sorted(rule.targets)), what]


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the page, or with ``--check`` exits with 1 when it differs."""
    return run_on_file(lambda page: put_into(page, render(), COMMAND), argv)


if __name__ == "__main__":
    sys.exit(main())

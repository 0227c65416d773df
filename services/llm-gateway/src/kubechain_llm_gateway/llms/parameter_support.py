"""Which parameter reaches which provider, and how: data, for the validation of an LLM and for docs/providers.md.

A parameter is sent, within the bounds that the provider sets, or the LLM is not Ready and says why. Nothing is dropped
silently. Where a refusal depends on the model, it is here only if it is certain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from kubechain_common.api.v1alpha1.llm import LLMParameters
from kubechain_llm_gateway.protocols.model_families import claude_version, is_openai_reasoning_only
from kubechain_llm_gateway.providers.wire_target import Target


@dataclass(frozen=True)
class Sent:
    """``field`` of the request's body; ``most`` is the provider's own bound where it is below the CRD's."""

    field: str
    most: float | None = None


@dataclass(frozen=True)
class Unknown:
    """The provider's API has no such parameter."""


Support = Sent | Unknown

_UNKNOWN = Unknown()
PARAMETERS = ("temperature", "maxTokens", "topP", "topK", "frequencyPenalty", "presencePenalty")
"""The fields of ``spec.parameters`` that say how to answer; model and baseUrl say who is asked."""


def _row(max_tokens: str, top_k: Support, penalties: bool, temperature: float | None = None) -> Mapping[str, Support]:
    return MappingProxyType(
        {
            "temperature": Sent("temperature", temperature),
            "maxTokens": Sent(max_tokens),
            "topP": Sent("top_p"),
            "topK": top_k,
            "frequencyPenalty": Sent("frequency_penalty") if penalties else _UNKNOWN,
            "presencePenalty": Sent("presence_penalty") if penalties else _UNKNOWN,
        }
    )


SUPPORT: Mapping[Target, Mapping[str, Support]] = MappingProxyType(
    {
        Target.OPENAI: _row("max_completion_tokens", _UNKNOWN, penalties=True),
        Target.COMPATIBLE: _row("max_tokens", Sent("top_k"), penalties=True),
        Target.AZURE: _row("max_completion_tokens", _UNKNOWN, penalties=True),
        Target.ANTHROPIC: _row("max_tokens", Sent("top_k"), penalties=False, temperature=1),
        Target.MISTRAL: _row("max_tokens", _UNKNOWN, penalties=True, temperature=1.5),
        Target.GOOGLE: _row("max_tokens", _UNKNOWN, penalties=False),
        Target.VERTEX_GEMINI: _row("max_tokens", _UNKNOWN, penalties=True),
        Target.VERTEX_CLAUDE: _row("max_tokens", Sent("top_k"), penalties=False, temperature=1),
    }
)


@dataclass(frozen=True)
class ModelRule:
    """Models of ``targets`` that take no parameter of ``parameters``, except for the value that is theirs anyway.

    ``together`` says that they take one of the parameters, but not all.
    """

    targets: frozenset[Target]
    models: str
    matches: Callable[[str], bool]
    parameters: tuple[str, ...]
    harmless: float | None = None
    together: bool = False


_CLAUDE = frozenset({Target.ANTHROPIC, Target.VERTEX_CLAUDE})
_OPENAI = frozenset({Target.OPENAI})


def _is_late_claude(model: str) -> bool:
    return (claude_version(model) or (0, 0)) >= (4, 7)


def _is_claude_of_one_sampler(model: str) -> bool:
    version = claude_version(model) or (0, 0)
    return (4, 5) <= version < (4, 7) or model.startswith("claude-opus-4-1")


MODEL_RULES = (
    ModelRule(_OPENAI, "o1, o3, o4-mini, gpt-5", is_openai_reasoning_only, ("temperature", "topP"), harmless=1),
    ModelRule(
        _OPENAI,
        "o1, o3, o4-mini, gpt-5",
        is_openai_reasoning_only,
        ("frequencyPenalty", "presencePenalty"),
        harmless=0,
    ),
    ModelRule(_CLAUDE, "Claude from 4.7 on", _is_late_claude, ("temperature", "topP", "topK")),
    ModelRule(
        _CLAUDE, "Claude 4.5, 4.6 and Opus 4.1", _is_claude_of_one_sampler, ("temperature", "topP"), together=True
    ),
)

SETTINGS: Mapping[str, str] = MappingProxyType(
    {
        "parameters.model": "`model`; in the path at Azure (a deployment) and for Claude on Vertex AI",
        "parameters.baseUrl": "in place of the provider's own address",
        "requestTimeoutSeconds": "how long a call may take; 600 when not set",
        "openai.organization": "header `OpenAI-Organization`; refused for Azure OpenAI",
        "openai.apiType": "which of OpenAI and Azure OpenAI is asked, and with which kind of key",
        "openai.apiVersion": "`api-version` in the query at Azure OpenAI, 2024-10-21 when not set; refused for OpenAI",
        "anthropic.anthropicBetaHeader": "header `anthropic-beta`",
        "anthropic.promptCaching": "`cache_control` on the last tool, the system prompt and the last message",
        "vertex.cloudProject": "in the path",
        "vertex.cloudLocation": "in the host's name and in the path",
        "mistral.maxRetries": "how often a call that failed is made again; 9 times when not set",
        "mistral.timeout": "the same as requestTimeoutSeconds; refused beside it",
        "mistral.randomSeed": "`random_seed`",
        "google.cloudProject": "refused: it has no meaning with an API key",
        "google.cloudLocation": "refused: it has no meaning with an API key",
    }
)
"""What becomes of every other field of an LLM's spec."""


def check_parameters(target: Target, parameters: LLMParameters) -> str | None:
    """What the provider would refuse, in a sentence; None when it takes all that is set."""
    given = {name: value for name, value in _values(parameters) if value is not None}
    return next(iter([*_outside_of_table(target, given), *_against_model_rules(target, parameters, given)]), None)


def _values(parameters: LLMParameters) -> Iterator[tuple[str, float | None]]:
    wire = parameters.to_wire()
    for name in PARAMETERS:
        yield name, None if wire.get(name) is None else float(wire[name])


def _outside_of_table(target: Target, given: Mapping[str, float]) -> Iterator[str]:
    for name, value in given.items():
        support = SUPPORT[target][name]
        if isinstance(support, Unknown):
            yield f"parameters.{name} is not known to {target}: remove it"
        elif support.most is not None and value > support.most:
            yield f"parameters.{name} of {target} goes from 0 to {support.most:g}"


def _against_model_rules(target: Target, parameters: LLMParameters, given: Mapping[str, float]) -> Iterator[str]:
    model = parameters.model or ""
    for rule in MODEL_RULES:
        if target not in rule.targets or not rule.matches(model):
            continue
        named = [name for name in rule.parameters if name in given and given[name] != rule.harmless]
        if rule.together and len(named) == len(rule.parameters):
            yield f"model {model} takes only one of {_list(named)}: remove one of them"
        elif named and not rule.together:
            yield f"model {model} does not take {_list(named)}: remove it"


def _list(names: list[str]) -> str:
    return " and ".join(f"parameters.{name}" for name in names)

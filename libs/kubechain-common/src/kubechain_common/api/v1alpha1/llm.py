"""LLM: a provider, the key to it and the parameters of every call."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import ConfigDict, Field

from kubechain_common.api.v1alpha1.meta import (
    CRDInfo,
    HttpURL,
    KubeModel,
    PrinterColumn,
    Ref,
    Resource,
    SecretSource,
    refers_to,
)
from kubechain_common.api.v1alpha1.money import LLMPrices
from kubechain_common.api.v1alpha1.rules import cel, cel_matches, validations
from kubechain_common.api.v1alpha1.status import ReadinessStatus

Provider = Literal["openai", "anthropic", "mistral", "google", "vertex"]

_BY_NAME = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
_ZERO_TO_ONE = r"^(0(\.[0-9]+)?|1(\.0+)?)$"
_ZERO_TO_TWO = r"^(0(\.[0-9]+)?|1(\.[0-9]+)?|2(\.0+)?)$"
_PENALTY = r"^-?(0(\.[0-9]+)?|1(\.[0-9]+)?|2(\.0+)?)$"


def _decimal(pattern: str, message: str) -> Any:
    """A number in a string; the model checks it too, because it is calculated with."""

    def put_rule(schema: dict[str, Any]) -> None:
        del schema["pattern"]
        schema |= validations(cel_matches(pattern, f'{message}, in quotes, like "0.7"'))

    return Field(pattern=pattern, max_length=16, json_schema_extra=put_rule)


class LLMParameters(KubeModel):
    """Parameters of a call, sent if present. Decimals are strings, because Kubernetes APIs avoid floats."""

    model: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=253,
                description="Name of the model; at Azure OpenAI, of a deployment. An LLM without it is not Ready.",
            ),
        ]
        | None
    ) = None
    base_url: (
        Annotated[
            HttpURL,
            Field(
                description="Address of the API in place of the provider's own: a compatible server, a proxy, or the"
                " endpoint of an Azure resource."
            ),
        ]
        | None
    ) = None
    temperature: (
        Annotated[
            str,
            _decimal(_ZERO_TO_TWO, "temperature is a number from 0 to 2"),
            Field(description="How freely the model chooses its words: 0 to 2, in quotes."),
        ]
        | None
    ) = None
    max_tokens: (
        Annotated[
            int, Field(ge=1, description="Tokens that an answer may have. Absent: the model's own bound; Claude: 4096.")
        ]
        | None
    ) = None
    top_p: (
        Annotated[
            str,
            _decimal(_ZERO_TO_ONE, "topP is a number from 0 to 1"),
            Field(description="Share of probability from which each token is chosen: 0 to 1, in quotes."),
        ]
        | None
    ) = None
    top_k: (
        Annotated[int, Field(ge=1, description="Number of likeliest tokens from which each token is chosen.")] | None
    ) = None
    frequency_penalty: (
        Annotated[
            str,
            _decimal(_PENALTY, "frequencyPenalty is a number from -2 to 2"),
            Field(description="How much tokens are avoided the more often they were used: -2 to 2, in quotes."),
        ]
        | None
    ) = None
    presence_penalty: (
        Annotated[
            str,
            _decimal(_PENALTY, "presencePenalty is a number from -2 to 2"),
            Field(description="How much tokens are avoided that were used at all: -2 to 2, in quotes."),
        ]
        | None
    ) = None


class OpenAIConfig(KubeModel):
    """What only OpenAI and Azure OpenAI have."""

    organization: (
        Annotated[str, Field(max_length=253, description="Id of the organization, for OpenAI. Azure has none.")] | None
    ) = None
    api_type: Annotated[
        Literal["OPEN_AI", "AZURE", "AZURE_AD"],
        Field(
            description="Who is asked: OpenAI or a compatible server (OPEN_AI), or Azure OpenAI, with a key (AZURE) or"
            " an access token of Entra ID (AZURE_AD) in the Secret.",
            json_schema_extra={"default": "OPEN_AI"},
        ),
    ] = "OPEN_AI"
    api_version: (
        Annotated[str, Field(max_length=63, description="Version of Azure OpenAI's API. Absent: 2024-10-21.")] | None
    ) = None


class AnthropicConfig(KubeModel):
    """What only Anthropic has."""

    anthropic_beta_header: (
        Annotated[str, Field(max_length=1024, description="Header anthropic-beta: features that are not final yet.")]
        | None
    ) = None
    prompt_caching: (
        Annotated[
            bool,
            Field(
                description="Has Anthropic keep what was sent for five minutes: the next turn reads it for a tenth of"
                " the price, while writing it costs a quarter more. Absent: false."
            ),
        ]
        | None
    ) = None


class VertexConfig(KubeModel):
    """Where on Vertex AI the model is; required for provider vertex."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            *(
                cel_matches(
                    "^[a-z0-9.:-]+$",
                    f"{field} takes lower-case letters, digits, '-', '.' and ':'",
                    field=field,
                )
                for field in ("cloudProject", "cloudLocation")
            )
        )
    )

    cloud_project: Annotated[str, Field(min_length=1, max_length=253, description="Id of the Google Cloud project.")]
    cloud_location: Annotated[
        str, Field(min_length=1, max_length=253, description="Region, like us-central1, or global.")
    ]


class MistralConfig(KubeModel):
    """What only Mistral has."""

    max_retries: (
        Annotated[int, Field(ge=0, description="How often a call that failed is made again. Absent: 9.")] | None
    ) = None
    timeout: (
        Annotated[int, Field(ge=1, description="Seconds: the older name of requestTimeoutSeconds. Set one of them.")]
        | None
    ) = None
    random_seed: (
        Annotated[int, Field(description="With the same seed the same conversation gets much the same answer.")] | None
    ) = None


class GoogleConfig(KubeModel):
    """Neither has a meaning with an API key: an LLM that sets one says to use provider vertex."""

    cloud_project: Annotated[str, Field(max_length=253, description="Leave it out: see provider vertex.")] | None = None
    cloud_location: Annotated[str, Field(max_length=253, description="Leave it out: see provider vertex.")] | None = (
        None
    )


class LLMRateLimit(KubeModel):
    """How much may be asked of the provider with this LLM's key, over all replicas of llm-gateway."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "has(self.requestsPerMinute) || has(self.tokensPerMinute)",
                "rateLimit needs requestsPerMinute, tokensPerMinute or both",
            )
        )
    )

    requests_per_minute: (
        Annotated[int, Field(ge=1, le=1_000_000, description="Calls that may be made in a minute. Absent: no limit.")]
        | None
    ) = None
    tokens_per_minute: (
        Annotated[
            int,
            Field(
                ge=1,
                le=1_000_000_000,
                description="Tokens, read and written, that calls may cost in a minute. What a call will cost is"
                " guessed, and corrected by what the provider counted. Absent: no limit.",
            ),
        ]
        | None
    ) = None


class LLMSpec(KubeModel):
    """Which provider is asked, with which key, and how."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            cel(
                "has(self.apiKeyFrom) || (self.provider == 'openai'"
                " && has(self.parameters) && has(self.parameters.baseUrl))",
                "apiKeyFrom is required; only provider openai with parameters.baseUrl (a compatible server)"
                " works without a key",
            ),
            cel(
                "self.provider != 'vertex' || has(self.vertex)", "vertex configuration is required for vertex provider"
            ),
            *(
                cel(
                    f"self.provider == '{provider}' || !has(self.{provider})",
                    f"{provider} is for provider {provider} only: remove it, or change provider",
                    field=provider,
                )
                for provider in get_args(Provider)
            ),
        )
    )

    provider: Annotated[
        Provider,
        Field(
            description="Who is asked. openai is also Azure OpenAI, and every server that speaks OpenAI's Chat"
            " Completions."
        ),
    ]
    api_key_from: (
        Annotated[
            SecretSource,
            Field(
                description="The Secret with the API key, or for vertex the JSON key file of a service account. It may"
                " be absent for provider openai with parameters.baseUrl."
            ),
        ]
        | None
    ) = None
    parameters: LLMParameters | None = None
    openai: OpenAIConfig | None = None
    anthropic: AnthropicConfig | None = None
    vertex: VertexConfig | None = None
    mistral: MistralConfig | None = None
    google: GoogleConfig | None = None
    request_timeout_seconds: (
        Annotated[int, Field(ge=1, le=3600, description="Seconds that a call to the provider may take. Absent: 600.")]
        | None
    ) = None
    accepts_images: (
        Annotated[
            bool,
            Field(
                description="The model takes images, so it sees those that tools return. Absent: it only reads that"
                " there was one."
            ),
        ]
        | None
    ) = None
    prices: (
        Annotated[
            LLMPrices,
            Field(
                description="What its tokens cost. A turn is priced with the prices at the time of its answer. Absent:"
                " no costs are shown."
            ),
        ]
        | None
    ) = None
    max_concurrency: (
        Annotated[
            int,
            Field(
                ge=1,
                le=1000,
                description="At most so many calls of this LLM are made at a time, over all replicas of llm-gateway."
                " Absent: 256.",
            ),
        ]
        | None
    ) = None
    rate_limit: LLMRateLimit | None = None
    fallbacks: Annotated[
        list[Annotated[Ref, refers_to("an LLM")]],
        Field(
            max_length=5,
            json_schema_extra=_BY_NAME,
            description="LLMs that are asked, in this order, when this one's provider is down, overloaded, asks to be"
            " left alone for long, does not take the key or does not know the model. Their own fallbacks are not.",
        ),
    ] = Field(default_factory=list)


class LLMStatus(ReadinessStatus):
    """Ready once the provider accepted the key."""


class LLM(Resource):
    """A language model that Agents may use."""

    crd: ClassVar[CRDInfo] = CRDInfo(
        kind="LLM",
        plural="llms",
        singular="llm",
        short_names=(),
        columns=(
            PrinterColumn("Provider", ".spec.provider"),
            PrinterColumn("Ready", ".status.ready", "boolean"),
            PrinterColumn("Status", ".status.status"),
            PrinterColumn("Detail", ".status.statusDetail", priority=1),
        ),
    )

    spec: LLMSpec
    status: LLMStatus = Field(default_factory=LLMStatus)

"""How a host wants Chat Completions: the points in which api.openai.com and those who imitate it differ. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubechain_llm_gateway.protocols.model_families import gemini_version
from kubechain_llm_gateway.protocols.wire_ids import fit_id
from kubechain_llm_gateway.protocols.wire_json import UNPARSABLE, encode_text, parse_arguments

_MISTRAL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Dialect:
    """One host's ways.

    ``official``: OpenAI's own servers, which refuse ``max_tokens`` for newer models and ids over 40 characters.
    Compatible servers know ``max_tokens`` only, and several parse the arguments of earlier tool calls, so text that is
    no JSON object must be wrapped for them.

    ``before_completion_tokens``: an Azure API version that does not know ``max_completion_tokens`` yet.

    ``mistral``: ids of tool calls are nine letters or digits, and messages have no names.

    ``gemini``: counts thoughts in the total only; from version 3 on insists on the signatures of its thoughts, and
    before that gives no JSON where there are tools.
    """

    host: str
    official: bool = False
    before_completion_tokens: bool = False
    mistral: bool = False
    gemini: bool = False

    @property
    def max_tokens_field(self) -> str:
        return "max_completion_tokens" if self.official and not self.before_completion_tokens else "max_tokens"

    def fit_call_id(self, call_id: str) -> str:
        if self.mistral:
            return call_id if _MISTRAL_ID.fullmatch(call_id) else _nine_characters(call_id)
        return fit_id(call_id, 40) if self.official and len(call_id) > 40 else call_id

    def fit_arguments(self, text: str) -> str:
        if self.official:
            return text
        parsed = parse_arguments(text)
        return encode_text(parsed) if UNPARSABLE in parsed or not parsed else text

    def fit_tool_schema(self, schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Gemini refuses an object without properties; None leaves the schema out."""
        if not self.gemini:
            return schema
        return {k: v for k, v in schema.items() if k != "$schema"} if schema.get("properties") else None

    def wants_signatures(self, model: str) -> bool:
        """Whether a tool call without the signature of the thought behind it is refused."""
        return self.gemini and (gemini_version(model) or (0, 0)) >= (3, 0)

    def takes_json_schema(self, model: str, with_tools: bool) -> bool:
        return not (self.gemini and with_tools and (gemini_version(model) or (3, 0)) < (3, 0))


def _nine_characters(call_id: str) -> str:
    """The same nine for the same id: 46 bits of its digest."""
    number = int.from_bytes(hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).digest()[:8])
    letters = []
    for _ in range(9):
        number, rest = divmod(number, 36)
        letters.append(_BASE36[rest])
    return "".join(letters)

"""Arguments that a person puts in place of the model's: checked before they use up the one answer that counts. Pure."""

from __future__ import annotations

import json
from typing import Any

from kubechain_common.api.tool_arguments import read_arguments


def read_edited(given: str | dict[str, Any]) -> str:
    """The JSON text of edited arguments, as it was written. Raises InvalidArgumentsError."""
    text = json.dumps(given, ensure_ascii=False) if isinstance(given, dict) else given
    read_arguments(text)
    return text

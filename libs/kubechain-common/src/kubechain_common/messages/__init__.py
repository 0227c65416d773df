"""What travels on the bus: versioned pydantic models, and the subjects they travel on.

Readers accept unknown fields; a message whose ``v`` they do not know is poison (see messaging.errors).
"""

from kubechain_common.messages.envelope import Envelope, ObjectRef
from kubechain_common.messages.human import AnswerCheck, HumanRequest, HumanResult
from kubechain_common.messages.live import LISTENING_SECONDS, LLMDelta, LLMListening
from kubechain_common.messages.llm import LLMCallError, LLMRequest, LLMResult, ResponseFormat, ToolDefinition
from kubechain_common.messages.tool import ToolRequest, ToolResult

__all__ = [
    "LISTENING_SECONDS",
    "AnswerCheck",
    "Envelope",
    "HumanRequest",
    "HumanResult",
    "LLMCallError",
    "LLMDelta",
    "LLMListening",
    "LLMRequest",
    "LLMResult",
    "ObjectRef",
    "ResponseFormat",
    "ToolDefinition",
    "ToolRequest",
    "ToolResult",
]

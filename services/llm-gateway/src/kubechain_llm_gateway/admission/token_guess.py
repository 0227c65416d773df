"""Guesses how many tokens a call will cost: about one for four characters, plus what recent answers cost. Pure.

The guesses get better: what the provider counts goes into the next ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from kubechain_common.api.v1alpha1.conversation import Message, TokenUsage
from kubechain_common.messages import ToolDefinition

_CHARACTERS = 4
_WEIGHT = 0.2
"""How much the latest call counts against all before it."""
_FIRST_ANSWER = 256.0


@dataclass(frozen=True)
class TokenGuess:
    """What is known of the calls of one LLM. ``per_character`` is what a character of the conversation costs,
    ``answer`` an answer.
    """

    per_character: float = 1 / _CHARACTERS
    answer: float = _FIRST_ANSWER

    def guess(self, characters: int, max_tokens: int | None) -> int:
        """What a call of so many characters will cost."""
        answer = min(self.answer, max_tokens) if max_tokens else self.answer
        return max(1, math.ceil(characters * self.per_character + answer))

    def learn(self, characters: int, usage: TokenUsage) -> TokenGuess:
        """A better guesser, after a call of so many characters."""
        if usage.input_tokens + usage.output_tokens <= 0:
            return self  # a provider that does not count
        seen = usage.input_tokens / max(1, characters)
        return TokenGuess(
            self.per_character + _WEIGHT * (seen - self.per_character),
            self.answer + _WEIGHT * (usage.output_tokens - self.answer),
        )


def count_characters(messages: Sequence[Message], tools: Sequence[ToolDefinition]) -> int:
    """The number of characters of all that the model reads."""
    said = sum(len(message.content) + _length_of_calls(message) for message in messages)
    return said + sum(len(t.name) + len(t.description) + len(orjson.dumps(t.parameters)) for t in tools)


def _length_of_calls(message: Message) -> int:
    return sum(len(call.function.name) + len(call.function.arguments) for call in message.tool_calls or ())

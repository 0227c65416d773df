"""Which LLM answers in the demo: a provider whose key is in the environment, else the scripted stand-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Choice = Literal["auto", "openai", "anthropic", "scripted"]

# Any text would do: the stand-in asks for exactly this key, so that the way of the Secret is the real one.
SCRIPTED_KEY = "scripted-stand-in"


@dataclass(frozen=True)
class Backend:
    """An LLM as the tutorial writes it down; ``llm`` is the name of the object."""

    provider: Literal["openai", "anthropic"]
    llm: str
    model: str
    secret: str
    key_name: str
    scripted: bool = False


OPENAI = Backend("openai", "gpt-4o", "gpt-4o", "openai", "OPENAI_API_KEY")
ANTHROPIC = Backend("anthropic", "claude", "claude-haiku-4-5", "anthropic", "ANTHROPIC_API_KEY")
SCRIPTED = Backend("openai", "gpt-4o", "gpt-4o", "openai", "OPENAI_API_KEY", scripted=True)


class MissingKeyError(ValueError):
    """The provider asked for has no key in the environment."""


def choose_backend(choice: Choice, env: Mapping[str, str]) -> Backend:
    """The backend of the choice; ``auto`` takes the first one that has a key. Raises ``MissingKeyError``."""
    if choice == "scripted":
        return SCRIPTED
    named = {"openai": OPENAI, "anthropic": ANTHROPIC}
    candidates = list(named.values()) if choice == "auto" else [named[choice]]
    for backend in candidates:
        if env.get(backend.key_name):
            return backend
    if choice == "auto":
        return SCRIPTED
    raise MissingKeyError(f"Set {candidates[0].key_name} in the environment first, or use --llm scripted.")


def explain_backend(backend: Backend) -> str:
    """Who answers, said to the user before anything runs."""
    if not backend.scripted:
        return f"{backend.key_name} is set: the model {backend.model} answers, for a few thousand tokens in all."
    return (
        "Neither OPENAI_API_KEY nor ANTHROPIC_API_KEY is used: a SCRIPTED STAND-IN on this machine plays the LLM.\n"
        "It speaks OpenAI's protocol and answers by script; it is not an LLM, and each of its answers says so."
    )

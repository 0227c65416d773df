"""What becomes of a conversation that grows beyond what its Agent gives the model to read (``spec.context``).

Before a turn is sent its window is measured: by the tokens that the provider counted for the last one, and an estimate
of what came after. Over the limit the Task ends, or the turn becomes one that asks the same model for a summary of all
but the beginning and the last messages. The answer is a message of role ``summary`` at the end of the record, which
stays whole: from there on the model reads the beginning, the summary, the messages that it kept, and what follows
(``api.content.build_view``). That a turn asks for a summary, and of what, stands in ``status.summaryKeeps``.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubechain_common.api.content import build_view, split_head, split_window
from kubechain_common.api.v1alpha1.agent import AgentContext
from kubechain_common.api.v1alpha1.conversation import Message
from kubechain_common.api.v1alpha1.task import Task
from kubechain_task_controller.core.plan import TaskSnapshot
from kubechain_task_controller.core.window_size import estimate_messages, estimate_tools

MAX_KEPT = 8
"""Messages that a summary leaves as they are, if they are small; one exchange in any case."""
_KEPT_SHARE = 4
"""The messages that are kept may take one part in so many of what the model may read."""

PROMPT = (
    "Summarise this conversation for yourself: it is about to be replaced by your summary. Write down what the user"
    " wants, in their own words where they matter; what was done and found out, with names, numbers and ids; what was"
    " decided; and what is still to do. Answer with the summary only, and call no tools."
)


def policy_of(snapshot: TaskSnapshot) -> AgentContext | None:
    """The Agent's ``spec.context`` as it is now; None if the Agent is gone or has none."""
    return snapshot.agent.spec.context if snapshot.agent is not None else None


def count_start(snapshot: TaskSnapshot, window: Sequence[Message]) -> int | None:
    """Tokens of a conversation before its first turn; None where nobody wants to know."""
    if policy_of(snapshot) is None:
        return None
    return _estimate(snapshot, build_view(*split_head(window)))


def count_before(snapshot: TaskSnapshot) -> int:
    """Tokens of the conversation as it stands in the status; an estimate where the policy is new."""
    status = snapshot.task.status
    if status.window_tokens is not None:
        return status.window_tokens
    last = next((m.usage for m in reversed(status.context_window) if m.usage is not None), None)
    if last is not None:
        return last.input_tokens + last.output_tokens
    return _estimate(snapshot, status.context_window)


def count_view(snapshot: TaskSnapshot, window: Sequence[Message]) -> int:
    """Tokens of what the model reads of a window with a summary near its end."""
    head, earlier, rest = split_window(window)
    return _estimate(snapshot, build_view(head, rest) if earlier is not None else build_view(*split_head(window)))


def choose_kept(window: Sequence[Message], max_tokens: int) -> int | None:
    """How many of the last messages a summary leaves as they are; None where a summary would not help.

    They begin with an answer of the model, or with what a user said: tool calls and their results stay together. The
    last summary is never among them.
    """
    head, earlier, rest = split_window(window)
    if earlier is None:
        head, rest = split_head(window)
    last_summary = next((i for i in range(len(rest) - 1, -1, -1) if rest[i].role == "summary"), None)
    first = 0 if last_summary is None else last_summary + 1
    # Something has to be left to tell of: what stands in pages, or an exchange.
    left = first if earlier is not None and last_summary is None else first + 1
    starts = [i for i in range(left, len(rest)) if rest[i].role in ("assistant", "user")]
    if not starts:
        return None
    start = starts.pop()
    while starts and _may_keep(rest[starts[-1] :], max_tokens):
        start = starts.pop()
    too_large = estimate_messages([*head, *rest[start:]]) > max_tokens
    return None if too_large else len(rest) - start


def _may_keep(messages: Sequence[Message], max_tokens: int) -> bool:
    return len(messages) <= MAX_KEPT and estimate_messages(messages) <= max_tokens // _KEPT_SHARE


def build_request_window(task: Task) -> list[Message]:
    """The messages of the turn's request: the window, or what is to be summarised and the wish for it."""
    window, keeps = task.status.context_window, task.status.summary_keeps
    if keeps is None:
        return window
    return [*window[: max(0, len(window) - keeps)], Message(role="user", content=PROMPT)]


def _estimate(snapshot: TaskSnapshot, messages: Sequence[Message]) -> int:
    return estimate_messages(messages) + estimate_tools(snapshot.catalog.definitions())

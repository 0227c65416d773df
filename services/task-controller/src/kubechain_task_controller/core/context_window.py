"""How the conversation of a Task begins and grows."""

from __future__ import annotations

from collections.abc import Sequence

from kubechain_common.api.nesting import MAX_NESTING, is_deep
from kubechain_common.api.v1alpha1.agent import Agent
from kubechain_common.api.v1alpha1.conversation import (
    Message,
    MessageToolCall,
    MessageUsage,
    TokenUsage,
    ToolCallFunction,
)
from kubechain_common.api.v1alpha1.task import Task
from kubechain_common.api.v1alpha1.taskruntoolcall import TaskRunToolCall, tool_text
from kubechain_task_controller.core.source import Source

_PREVIEW_LIMIT = 50
_PREVIEW_CUT = 47

NOT_RUN = "Error: the Task ended before this tool call was answered"


def build_initial_window(task: Task, agent: Agent, source: Source | None) -> list[Message]:
    """[system, user]; or the conversation given in the spec; or the one of an earlier Task with a new user message.

    The system message is the agent's, unless the given conversation brings its own.
    """
    spec = task.spec
    if spec.context_window is not None:
        given: list[Message] = [_of_another_task(m) for m in spec.context_window]
        return given if given[0].role == "system" else [Message(role="system", content=agent.spec.system), *given]
    earlier: list[Message] = []
    if source is not None and spec.context_window_from is not None:
        said = _until_turn(source, spec.context_window_from.turn)
        earlier = _answer_open_calls([_of_another_task(m) for m in said if m.role != "system"])
    return [
        Message(role="system", content=agent.spec.system),
        *earlier,
        Message(role="user", content=spec.user_message or ""),
    ]


def _of_another_task(message: Message) -> Message:
    """Without what it used, which counted there, and without images, which belong there; its text still names them."""
    return message.model_copy(update={"usage": None, "images": None}) if message.usage or message.images else message


def _until_turn(source: Source, turn: int | None) -> list[Message]:
    """The source's messages up to and with the tool results that answer ``turn``'s assistant message (all, if None).

    Each of its turns gave one answer, but for the last one, which may have failed.
    """
    window, last = source.window, source.task.status.turn
    if turn is None or turn >= last:
        return list(window)
    own = _find_own_answers(source)
    return list(window[: own[turn]]) if turn < len(own) else list(window)


def _find_own_answers(source: Source) -> list[int]:
    """Where the answers of its own turns are, after those of a conversation that it was given itself."""
    status, answers = source.task.status, find_answers(source.window)
    if status.inherited_messages is not None:
        return [i for i in answers if i >= status.inherited_messages]
    # It was given none, or an older release began it; that one does not say where its own begin.
    return answers[-status.turn :]


def find_answers(window: Sequence[Message]) -> list[int]:
    """Where in the window the model's answers are; a summary is one too."""
    return [i for i, m in enumerate(window) if m.role in ("assistant", "summary")]


def _answer_open_calls(messages: list[Message]) -> list[Message]:
    """A Task that failed may end with tool calls that nothing answers; providers refuse such a conversation."""
    asked = next((i for i in range(len(messages) - 1, -1, -1) if messages[i].role == "assistant"), None)
    if asked is None:
        return messages
    calls, after = messages[asked].tool_calls or [], messages[asked + 1 :]
    given = {m.tool_call_id: m for m in after if m.role == "tool"}
    if all(call.id in given for call in calls):
        return messages
    answers = [given.get(call.id) or Message(role="tool", content=NOT_RUN, tool_call_id=call.id) for call in calls]
    ids = {call.id for call in calls}
    return [*messages[: asked + 1], *answers, *(m for m in after if m.tool_call_id not in ids)]


def find_problem(window: Sequence[Message]) -> str | None:
    """Why a model can not go on with a conversation that was given to a Task."""
    for index, message in enumerate(window):
        if is_deep(message.provider_data):
            return f"contextWindow[{index}].providerData is nested more than {MAX_NESTING} levels deep"
    return _find_unanswered_call(window)


def _find_unanswered_call(window: Sequence[Message]) -> str | None:
    """No provider takes a conversation that lacks the result of one of its tool calls."""
    answered = {m.tool_call_id for m in window if m.role == "tool"}
    for message in window:
        for call in message.tool_calls or ():
            if call.id not in answered:
                return (
                    f'The context window has no answer to tool call "{call.id}" ({call.function.name}): '
                    "add a message with role tool and this toolCallId, or remove the call"
                )
    return None


def preview_of(window: list[Message]) -> str:
    """The beginning of the last thing that the user said, for ``kubectl get``."""
    said = next((m.content for m in reversed(window) if m.role == "user"), "")
    return said if len(said) <= _PREVIEW_LIMIT else said[:_PREVIEW_CUT] + "..."


def normalise_answer(message: Message, turn: int, usage: TokenUsage | None) -> Message:
    """The model's answer with what it used.

    Every tool call has an id of its own: results are matched to calls by id.
    """
    used = MessageUsage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens) if usage else None
    update: dict[str, object] = {"usage": used} if used is not None or message.usage is not None else {}
    if not message.tool_calls:
        return message.model_copy(update={**update, "tool_calls": None})
    seen: set[str] = set()
    calls = []
    for index, call in enumerate(message.tool_calls, start=1):
        call_id = call.id if call.id and call.id not in seen else f"call_{turn}_{index}"
        seen.add(call_id)
        function = ToolCallFunction(name=call.function.name, arguments=call.function.arguments)
        calls.append(MessageToolCall(id=call_id, type=call.type, function=function))
    return message.model_copy(update={**update, "tool_calls": calls})


def build_tool_message(call: MessageToolCall, child: TaskRunToolCall | None, refusal: str | None) -> Message:
    """What the model reads about one of its calls: the result, or why there is none; never nothing."""
    text = tool_text(child) if child is not None else f"Error: {refusal or 'the tool call was lost'}"
    images = child.status.images or None if child is not None else None
    return Message(role="tool", content=text, tool_call_id=call.id, images=images)

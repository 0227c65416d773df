"""Reading windows: what the cache saves, and whose objects are read at all."""

from __future__ import annotations

from typing import Any

import pytest

from kubechain_common.api.content import PAGE_KEY, SUMMARY_INTRODUCTION, TEXT_KEY, read_page, write_page
from kubechain_common.api.v1alpha1.conversation import ConfigMapKeyRef, ContentSource, ImageSource, Message, ShownImage
from kubechain_common.api.v1alpha1.meta import Ref
from kubechain_common.kube.errors import NotFoundError, UnavailableError
from kubechain_common.kube.text_cache import TextCache
from kubechain_common.kube.window_reader import ContentLostError, WindowReader
from kubechain_common.messages import ObjectRef
from kubechain_common.testing.builders import build_call, build_task

TASK = build_task()
REF = ObjectRef.of(TASK)
OWNED = {"ownerReferences": [TASK.build_owner_reference().to_wire()]}


class Api:
    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.away = False

    async def request(self, method: str, path: str) -> dict[str, Any]:
        self.asked.append(path)
        if self.away:
            raise UnavailableError("down")
        try:
            return self.objects[path.rpartition("/")[2]]
        except KeyError:
            raise NotFoundError(path) from None

    def add_config_map(self, name: str, data: dict[str, str], metadata: dict[str, Any] = OWNED) -> None:
        self.objects[name] = {"metadata": {"name": name, **metadata}, "data": data}


@pytest.fixture
def api() -> Api:
    return Api()


def build_reader(api: Api, capacity: int = 1_000_000) -> WindowReader:
    return WindowReader(api, TextCache(capacity))


def tool(name: str) -> Message:
    source = ContentSource(task_run_tool_call_ref=Ref(name=name))
    return Message(role="tool", content="short", content_from=source, tool_call_id="call_1")


def stored(name: str, key: str = TEXT_KEY, role: Any = "user") -> Message:
    source = ContentSource(config_map_key_ref=ConfigMapKeyRef(name=name, key=key))
    return Message(role=role, content="short", content_from=source)


async def test_a_window_without_references_costs_nothing(api: Api) -> None:
    window = [Message(role="user", content="hi")]
    assert await build_reader(api).read(REF, window) == window
    assert api.asked == []


@pytest.mark.parametrize(
    ("status", "text"),
    [
        ({"phase": "Succeeded", "result": "whole"}, "whole"),
        ({"phase": "Succeeded"}, "[no content]"),
        ({"phase": "Failed", "error": "no route"}, "Error: no route"),
        ({"phase": "ToolCallRejected", "result": "no"}, "no"),
    ],
)
async def test_a_result_reads_as_it_did_in_the_window(api: Api, status: dict[str, Any], text: str) -> None:
    api.objects["c"] = build_call("c", task=TASK, status=status).to_wire()
    (message,) = await build_reader(api).read(REF, [tool("c")])
    assert message == Message(role="tool", content=text, tool_call_id="call_1")


async def test_what_was_read_once_is_not_asked_for_again(api: Api) -> None:
    api.add_config_map("m", {"content": "whole"})
    reader = build_reader(api)
    for _ in range(2):
        assert [m.content for m in await reader.read(REF, [stored("m"), stored("m")])] == ["whole", "whole"]
    assert len(api.asked) == 1


async def test_what_the_sender_had_at_hand_is_not_asked_for(api: Api) -> None:
    reader = build_reader(api)
    reader.learn(REF, {"taskruntoolcall/c/result": "whole"})
    assert (await reader.read(REF, [tool("c")]))[0].content == "whole"
    other = REF.model_copy(update={"uid": "another"})
    with pytest.raises(ContentLostError):
        await reader.read(other, [tool("c")])


async def test_without_room_in_the_cache_everything_is_still_read(api: Api) -> None:
    api.add_config_map("m", {"content": "whole"})
    reader = build_reader(api, capacity=0)
    assert [m.content for m in await reader.read(REF, [stored("m")])] == ["whole"]


async def test_pages_are_read_back_to_the_first_and_then_kept(api: Api) -> None:
    first = [Message(role="user", content=f"{i}") for i in range(3)]
    second = [stored("one", PAGE_KEY, "earlier"), stored("text"), Message(role="user", content="4")]
    api.add_config_map("one", {PAGE_KEY: write_page(first)})
    api.add_config_map("two", {PAGE_KEY: write_page(second)})
    api.add_config_map("text", {"content": "3"})
    window = [
        Message(role="system", content="s"),
        stored("two", PAGE_KEY, "earlier"),
        Message(role="user", content="5"),
    ]
    reader = build_reader(api)
    for _ in range(2):
        assert [m.content for m in await reader.read(REF, window)] == ["s", "0", "1", "2", "3", "4", "5"]
    assert len(api.asked) == 3


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"ownerReferences": [build_task("other").build_owner_reference().to_wire()]},
        {"ownerReferences": [{"kind": "Pod", "uid": TASK.uid}]},
    ],
    ids=["nobody's", "another Task's", "a Pod's"],
)
async def test_an_object_that_is_not_the_tasks_is_not_read(api: Api, metadata: dict[str, Any]) -> None:
    api.add_config_map("m", {"content": "not for you"}, metadata)
    with pytest.raises(ContentLostError, match='ConfigMap "m" does not belong to Task "hello"') as raised:
        await build_reader(api).read(REF, [stored("m")])
    assert "not for you" not in str(raised.value)


async def test_a_missing_key_and_a_broken_page_are_told(api: Api) -> None:
    api.add_config_map("m", {"other": "x"})
    with pytest.raises(ContentLostError, match='ConfigMap "m" does not hold the text'):
        await build_reader(api).read(REF, [stored("m")])
    api.add_config_map("p", {PAGE_KEY: "no json"})
    with pytest.raises(ContentLostError, match='ConfigMap "p" does not hold messages'):
        await build_reader(api).read(REF, [stored("p", PAGE_KEY, "earlier")])


async def test_an_api_server_that_is_away_loses_nothing(api: Api) -> None:
    api.add_config_map("m", {"content": "whole"})
    api.away = True
    reader = build_reader(api)
    with pytest.raises(UnavailableError):
        await reader.read(REF, [stored("m")])
    api.away = False
    assert (await reader.read(REF, [stored("m")]))[0].content == "whole"


def test_a_page_is_one_line_per_message() -> None:
    messages = [Message(role="user", content="a\nb\u2028c\x85"), Message(role="assistant", content='"')]
    assert write_page(messages).count("\n") == 2
    assert read_page(write_page(messages)) == messages


async def test_a_page_that_comes_before_itself_is_read_once(api: Api) -> None:
    first, second = stored("first", PAGE_KEY, "earlier"), stored("second", PAGE_KEY, "earlier")
    api.add_config_map("first", {PAGE_KEY: write_page([second, Message(role="user", content="a")])})
    api.add_config_map("second", {PAGE_KEY: write_page([first, Message(role="user", content="b")])})
    with pytest.raises(ContentLostError, match='"first" says that it comes before itself'):
        await build_reader(api).read(REF, [first])


async def test_a_call_that_can_not_be_read_is_lost_and_not_asked_for_again_and_again(api: Api) -> None:
    api.objects["c"] = {"metadata": {"name": "c", **OWNED}, "spec": {"arguments": ["of another version"]}}
    with pytest.raises(ContentLostError, match='TaskRunToolCall "c" can not be read'):
        await build_reader(api).read(REF, [tool("c")])


def picture(*names: str) -> Message:
    sources = [
        ImageSource(mime_type="image/png", config_map_key_ref=ConfigMapKeyRef(name=name, key="image")) for name in names
    ]
    return Message(role="tool", content="[image/png, 3 bytes]", tool_call_id="call_1", images=sources)


def data_of(message: Message) -> list[str]:
    return [image.data for image in message.images or () if isinstance(image, ShownImage)]


async def test_images_are_read_for_a_model_that_takes_them_the_newest_first(api: Api) -> None:
    for name in ("a", "b", "c"):
        api.add_config_map(name, {"image": name * 4})
    reader = build_reader(api)
    window = [Message(role="user", content="hi"), picture("a", "b"), picture("c")]
    assert await reader.read(REF, window) == window
    assert api.asked == []
    shown = await reader.show_images(REF, window, 2)
    assert [data_of(message) for message in shown] == [[], ["bbbb"], ["cccc"]]
    assert [message.content for message in shown] == [message.content for message in window]
    assert len(api.asked) == 2
    (only,) = await reader.show_images(REF, [picture("a")], 2)
    assert data_of(only) == ["aaaa"]


async def test_an_image_beyond_the_limit_is_not_read_and_not_there(api: Api) -> None:
    api.add_config_map("b", {"image": "BBBB"})
    first, second = await build_reader(api).show_images(REF, [picture("a"), picture("b")], 1)
    assert (first.images, data_of(second)) == (None, ["BBBB"])


async def test_an_image_of_another_task_is_not_read(api: Api) -> None:
    api.add_config_map("a", {"image": "AAAA"}, metadata={})
    with pytest.raises(ContentLostError, match="does not belong to Task"):
        await build_reader(api).show_images(REF, [picture("a")], 1)


# --- summaries


def said(*texts: str) -> list[Message]:
    """Messages by their first letter: s(ystem), u(ser), a(ssistant), and S2 for a summary that keeps two."""
    roles: dict[str, Any] = {"s": "system", "u": "user", "a": "assistant", "t": "tool", "S": "summary"}
    return [Message(role=roles[t[0]], content=t, keeps=int(t[1]) if t[0] == "S" else None) for t in texts]


def texts(messages: list[Message]) -> list[str]:
    return [message.content.removeprefix(f"{SUMMARY_INTRODUCTION}\n\n") for message in messages]


@pytest.mark.parametrize(
    ("record", "view"),
    [
        ("s u a1 t1", "s u a1 t1"),
        ("s u a1 t1 a2 t2 S2", "s u S2 a2 t2"),
        ("s u a1 t1 a2 t2 S0 a3", "s u S0 a3"),
        ("s u a1 t1 S2 a2 t2 a3 t3 S2 a4", "s u S2 a3 t3 a4"),
        ("s u a1 t1 S2 a2 S3", "s u S3 a1 t1 a2"),
        ("s u S9 a2", "s u S9 a2"),
    ],
)
async def test_the_model_reads_a_conversation_from_its_last_summary_on(api: Api, record: str, view: str) -> None:
    window = said(*record.split())
    read = await build_reader(api).read(REF, window)
    assert texts(read) == view.split()
    assert all(message.role != "summary" for message in read)
    assert await build_reader(api).read_record(REF, window) == window


async def test_pages_before_the_summary_are_not_read_for_the_model(api: Api) -> None:
    earlier = stored("older", PAGE_KEY, "earlier")
    api.add_config_map("older", {PAGE_KEY: write_page(said("a1", "t1"))})
    api.add_config_map("newer", {PAGE_KEY: write_page([earlier, *said("a2", "t2")])})
    head, earlier = said("s", "u"), stored("newer", PAGE_KEY, "earlier")
    reader = build_reader(api)
    assert texts(await reader.read(REF, [*head, earlier, *said("a3", "t3", "S2", "a4")])) == [
        "s",
        "u",
        "S2",
        "a3",
        "t3",
        "a4",
    ]
    assert api.asked == []
    assert texts(await reader.read(REF, [*head, earlier, *said("a3", "S2", "a4")])) == [
        "s",
        "u",
        "S2",
        "t2",
        "a3",
        "a4",
    ]
    assert [path.rpartition("/")[2] for path in api.asked] == ["newer"]
    whole = await reader.read_record(REF, [*head, earlier, *said("a3", "S1")])
    assert texts(whole) == ["s", "u", "a1", "t1", "a2", "t2", "a3", "S1"]


async def test_a_summary_in_a_page_is_found(api: Api) -> None:
    older = stored("older", PAGE_KEY, "earlier")
    api.add_config_map("older", {PAGE_KEY: write_page(said("a1"))})
    api.add_config_map("newer", {PAGE_KEY: write_page([older, *said("a2", "S1", "a3")])})
    window = [*said("s", "u"), stored("newer", PAGE_KEY, "earlier"), *said("a4")]
    assert texts(await build_reader(api).read(REF, window)) == ["s", "u", "S1", "a2", "a3", "a4"]
    assert [path.rpartition("/")[2] for path in api.asked] == ["newer"]


async def test_texts_that_a_summary_stands_for_are_not_asked_for(api: Api) -> None:
    api.add_config_map("summary", {TEXT_KEY: "long"})
    summary = stored("summary", role="summary").model_copy(update={"keeps": 0})
    read = await build_reader(api).read(REF, [*said("s", "u"), tool("gone"), summary])
    assert [message.content for message in read] == ["s", "u", f"{SUMMARY_INTRODUCTION}\n\nlong"]

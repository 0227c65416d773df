"""A stdio MCP server of the older protocol in plain Python: it starts at once, and misbehaves on demand."""

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("--garbage", action="store_true", help="print what is neither JSON-RPC nor even text")
parser.add_argument("--say", default="", help="print this to stderr at the start")
parser.add_argument("--exit", type=int, help="end with this status before answering anything")
parser.add_argument("--mute", action="store_true", help="never answer")
parser.add_argument("--no-list", action="store_true", help="never answer tools/list")
parser.add_argument("--noise", action="store_true", help="print without an end before answering anything")
parser.add_argument("--stubborn", action="store_true", help="stay when stdin closes and when told to leave")
parser.add_argument("--restless", action="store_true", help="say that the tools are others whenever they are listed")
parser.add_argument("--pages", type=int, help="list new tools without an end, page by page, each of so many bytes")
parser.add_argument("--pester", type=int, help="send requests of so many bytes without an end, and read no more")
parser.add_argument("--ask", action="store_true", help="have a tool that sends requests and waits for the answers")
parser.add_argument("--pattern", help="declare that echo gives a structured answer, with a text of this pattern")
parser.add_argument("--offspring", help="start two children that outlive their parent; write all pids to this file")
options = parser.parse_args()

SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
listed_at: list[float] = []
tools = ["echo", "env", "pid", "die", "slow", "grow", "fail", "flood", "odd"]
lock = threading.Lock()
asked = threading.Semaphore(100)


def send(message: dict[str, Any]) -> None:
    with lock:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def describe(name: str) -> dict[str, Any]:
    hints = {"readOnlyHint": True, "title": "Echo"} if name == "echo" else None
    tool = {
        "name": name,
        "description": f"does {name}",
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
    }
    if name == "echo" and options.pattern:
        fits = {"type": "object", "properties": {"text": {"pattern": options.pattern}}, "required": ["text"]}
        tool["outputSchema"] = fits
    return {**tool, "annotations": hints} if hints else tool


def run_tool(name: str, arguments: dict[str, Any], meta: Any) -> tuple[str, bool]:
    if name == "echo":
        return str(arguments.get("text", "")), False
    if name == "env":
        return json.dumps(dict(os.environ)), False
    if name == "pid":
        return str(os.getpid()), False
    if name == "slow":
        time.sleep(arguments.get("seconds", 600))
        return "slept", False
    if name == "grow":
        tools.append("new")
        send({"method": "notifications/tools/list_changed"})
        return "grown", False
    if name == "listed":
        return json.dumps(listed_at), False
    if name == "ask":
        for number in range(arguments["times"]):
            asked.acquire()
            send({"id": f"ask-{number}", "method": "ping"})
        for _ in range(100):
            asked.acquire()
        return "answered", False
    if name == "flood":
        return "x" * arguments["bytes"], False
    if name == "fail":
        return f"it broke, meta {json.dumps(meta)}", True
    os._exit(3)


def call(message: dict[str, Any]) -> None:
    parameters = message["params"]
    if parameters["name"] == "odd":
        with lock:
            content = b'[{"type": "text", "text": "half \\ud83d, stray \xff, nul \\u0000, whole \\ud83d\\ude00"}]'
            answer = b'{"jsonrpc": "2.0", "id": %s, "result": {"content": %s}}\n'
            sys.stdout.buffer.write(answer % (json.dumps(message["id"]).encode(), content))
            sys.stdout.flush()
        return
    text, failed = run_tool(parameters["name"], parameters.get("arguments") or {}, parameters.get("_meta"))
    result = {"content": [{"type": "text", "text": text}], "isError": failed}
    if options.pattern:
        result["structuredContent"] = {"text": text}
    send({"id": message["id"], "result": result})


def handle(message: dict[str, Any]) -> None:
    method = message.get("method")
    if options.mute or "id" not in message:
        return
    if method is None:
        asked.release()
        return
    if method == "initialize":
        answer = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "plain", "version": "1"},
        }
        send({"id": message["id"], "result": answer})
    elif method == "tools/list" and options.no_list:
        return
    elif method == "tools/list":
        listed_at.append(time.monotonic())
        listed: dict[str, Any] = {"tools": [describe(t) for t in tools]}
        if options.pages:
            tool = {"name": f"tool-{len(listed_at)}", "description": "x" * options.pages}
            tool["inputSchema"] = {"type": "object"}
            listed = {"tools": [tool], "nextCursor": "more"}
        send({"id": message["id"], "result": listed})
        if options.restless:
            send({"method": "notifications/tools/list_changed"})
        while options.pester:
            send({"id": "x" * options.pester, "method": "ping"})
    elif method == "tools/call":
        threading.Thread(target=call, args=(message,), daemon=True).start()
    else:
        send({"id": message["id"], "error": {"code": -32601, "message": f"no method {method}"}})


if options.restless:
    tools.append("listed")
if options.ask:
    tools.append("ask")
if options.say:
    print(options.say, file=sys.stderr, flush=True)
if options.exit is not None:
    sys.exit(options.exit)
if options.stubborn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if options.offspring:
    same_group = subprocess.Popen([sys.executable, "-c", SLEEPER])
    own_session = subprocess.Popen([sys.executable, "-c", SLEEPER], start_new_session=True)
    with open(options.offspring + ".part", "w") as file:
        file.write(f"{os.getpid()} {same_group.pid} {own_session.pid}")
    os.rename(options.offspring + ".part", options.offspring)
if options.garbage:
    sys.stdout.buffer.write(b'Listening on port 8080...\n\xff\xfe\x00\x80 not text\n{"json": "but not rpc"}\n[]\n')
    sys.stdout.flush()
while options.noise:
    sys.stdout.write("x" * 65536)
for line in sys.stdin:
    handle(json.loads(line))
while options.stubborn:
    time.sleep(1)

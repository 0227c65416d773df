"""A stdio MCP server in plain Python that misbehaves as its tools and options say, and notes what it ran in a file.

`faulty_server.py NOTES [--exit] [--no-list] [--noise] [--other]`. A line of NOTES is "<tool> <pid>", or
"cancelled <pid>".
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

parser = argparse.ArgumentParser()
parser.add_argument("notes", type=Path)
parser.add_argument("--exit", action="store_true", help="end at once with words on stderr")
parser.add_argument("--no-list", action="store_true", help="never answer tools/list")
parser.add_argument("--noise", action="store_true", help="print garbage and write much to stderr at the start")
parser.add_argument("--other", action="store_true", help="no difference")
options = parser.parse_args()

STRICT = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
}
HINTS = {"die_safely": {"idempotentHint": True}}
NAMES = ["strict", "fail", "break", "sleep", "flood", "chatter", "die", "die_safely", "swap", "old", "picture", "odd"]
tools = {name: {"type": "object"} for name in (*NAMES, "empty", "pid", "gate", "eat")} | {"strict": STRICT}
lock = threading.Lock()
hoard: list[bytes] = []
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def note(what: str) -> int:
    """How often this was noted before."""
    with lock, Path(options.notes).open("a+") as file:
        file.seek(0)
        before = sum(line.startswith(what + " ") for line in file)
        file.write(f"{what} {os.getpid()}\n")
    return before


def write(data: bytes) -> None:
    with lock:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def send(message: dict[str, Any]) -> None:
    write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def describe(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    hints = {"annotations": HINTS[name]} if name in HINTS else {}
    return {"name": name, "description": f"does {name}", "inputSchema": schema, **hints}


def run(name: str, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    before = note(name)
    match name:
        case "sleep":
            time.sleep(arguments["seconds"])
        case "gate":
            while not options.notes.with_name(arguments["name"]).exists():
                time.sleep(0.02)
        case "flood":
            return [{"type": "text", "text": "x" * arguments["bytes"]}]
        case "chatter":
            write(b"Listening on port 8080...\n\xff\xfe\x00\x80\n" + b"{}\n[]\n" * 1000)
            os.write(2, b"much to say\n" * 100_000)
        case "eat":
            hoard.append(b"x" * (arguments["mebibytes"] << 20))
            time.sleep(arguments["seconds"])
        case "die":
            os._exit(3)
        case "die_safely" if not before:
            os._exit(3)
        case "swap":
            tools["new"] = tools.pop("old")
            send({"method": "notifications/tools/list_changed"})
        case "picture":
            return [{"type": "image", "data": PIXEL, "mimeType": "image/png"}]
        case "empty":
            return []
        case "pid":
            return [{"type": "text", "text": str(os.getpid())}]
    return [{"type": "text", "text": f"ran {name}"}]


def call(number: Any, name: str, arguments: dict[str, Any]) -> None:
    match name:
        case "odd":
            note(name)
            content = b'[{"type": "text", "text": "half \\ud83d stray \xff nul \\u0000 end"}]'
            write(b'{"jsonrpc": "2.0", "id": %s, "result": {"content": %s}}\n' % (json.dumps(number).encode(), content))
        case "fail":
            note(name)
            text = [{"type": "text", "text": "the backend is on fire"}]
            send({"id": number, "result": {"content": text, "isError": True}})
        case "break":
            note(name)
            send({"id": number, "error": {"code": -32603, "message": "KeyError: 'nobody thought of this'"}})
        case _:
            send({"id": number, "result": {"content": run(name, arguments)}})


def handle(message: dict[str, Any]) -> None:
    number, method = message.get("id"), message.get("method")
    if method == "notifications/cancelled":
        note("cancelled")
    if number is None or (method == "tools/list" and options.no_list):
        return
    if method == "initialize":
        capabilities = {"tools": {"listChanged": True}}
        info = {"name": "faulty", "version": "1"}
        send(
            {
                "id": number,
                "result": {"protocolVersion": "2025-06-18", "capabilities": capabilities, "serverInfo": info},
            }
        )
    elif method == "tools/list":
        send({"id": number, "result": {"tools": [describe(*tool) for tool in tools.items()]}})
    elif method == "tools/call":
        arguments = (number, message["params"]["name"], message["params"].get("arguments") or {})
        threading.Thread(target=call, args=arguments, daemon=True).start()
    else:
        send({"id": number, "error": {"code": -32601, "message": f"no method {method}"}})


if options.exit:
    sys.exit("cannot open the database")
if options.noise:
    write(b"Welcome!\n" * 1000 + b"\xff\x00\n")
    os.write(2, b"starting\n" * 100_000)
for line in sys.stdin:
    handle(json.loads(line))

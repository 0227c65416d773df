"""``python -m kubechain_cli.scripted_llm``: the stand-in as a process of its own, until SIGTERM or SIGINT.

Prints one line of JSON with its URLs and pid once it listens; nothing else goes to standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from kubechain_cli.scripted_llm.scripts import SCRIPTS
from kubechain_cli.scripted_llm.server import DEFAULT_MODELS, ScriptedServer


def build_parser() -> argparse.ArgumentParser:
    """The options of the process."""
    parser = argparse.ArgumentParser("python -m kubechain_cli.scripted_llm", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free port")
    parser.add_argument("--script", choices=sorted(SCRIPTS), default="tutorial")
    parser.add_argument("--log", type=Path, metavar="FILE", help="append every request to FILE as a line of JSON")
    parser.add_argument(
        "--log-bodies",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave the bodies out of FILE: for measurements, which a log of long conversations would slow down",
    )
    parser.add_argument("--model", action="append", metavar="ID", help="list this model (may be given again)")
    parser.add_argument("--require-key", metavar="KEY", help="refuse every other key; it is no secret, ps shows it")
    return parser


async def serve(options: argparse.Namespace) -> None:
    """Serve until a signal says stop."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    server = ScriptedServer(
        SCRIPTS[options.script],
        options.host,
        options.port,
        require_key=options.require_key,
        models=tuple(options.model or DEFAULT_MODELS),
        log_file=options.log,
        log_bodies=options.log_bodies,
        keep_requests=0,
    )
    async with server:
        ready = {"url": server.url, "anthropic_url": server.anthropic_url, "pid": os.getpid(), "script": options.script}
        print(json.dumps(ready), flush=True)
        await stopping.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line and serve; a port that is taken ends the process with a sentence and code 1."""
    options = build_parser().parse_args(arguments)
    try:
        uvloop.run(serve(options))
    except OSError as error:
        sys.exit(f"scripted stand-in: cannot start: {error}")


if __name__ == "__main__":
    main()

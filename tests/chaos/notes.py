"""Lines of JSON appended by one write each, so that no death of a writer tears one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def note(file: Path, **fields: object) -> None:
    line = json.dumps({"time": time.time(), "pid": os.getpid(), **fields}) + "\n"
    with file.open("ab", buffering=0) as log:
        log.write(line.encode())


def read_notes(file: Path) -> Iterator[dict[str, Any]]:
    if file.exists():
        with file.open("rb") as log:
            yield from map(json.loads, log)

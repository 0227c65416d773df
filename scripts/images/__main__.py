"""Builds all images, checks and describes them, prints their sizes and saves them.

``python -m scripts.images [--version V] [--registry R] [--base IMAGE] [--save DIR]``
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from scripts.images import engine
from scripts.images.build import NAMES, Plan, build_images, read_version
from scripts.images.described import describe_image
from scripts.images.engine import EngineError
from scripts.images.saved import save_images


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="images", description="Build the images of KubeChain.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; all when none is named")
    parser.add_argument("--version", default="", help="of the services; the members' when empty")
    parser.add_argument("--registry", default="", help="comes before kubechain/<name>")
    parser.add_argument("--base", default="", help="image with Python 3.11 or newer")
    parser.add_argument(
        "--save", type=Path, metavar="DIR", help="write kubechain-<version>.tar there, for `ctr import`"
    )
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"there is no image {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    started = time.monotonic()
    try:
        plan = Plan(chosen.version or read_version(), chosen.registry, chosen.base)
        tags = build_images(plan, chosen.names or NAMES)
        for name, tag in tags.items():
            print(f"{tag:<44} {read_size(tag) / 1e6:6.0f} MB  {describe_image(name, tag, plan.version_of(name))}")
        if chosen.save:
            print(f"saved to {save_images(list(tags.values()), chosen.save / f'kubechain-{plan.version}.tar')}")
    except EngineError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    print(f"{len(tags)} images after {time.monotonic() - started:.1f} s")
    return 0


def read_size(tag: str) -> int:
    """Bytes of all layers, unpacked."""
    return int(engine.need_image(tag)["Size"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Finding or making the three control plane binaries: the first source that works wins.

1. KUBEBUILDER_ASSETS or PATH   2. our cache   3. the official release downloads   4. a Go build of the pinned module
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kubechain_cli.localcluster.errors import BinaryUnavailableError
from kubechain_cli.localcluster.layout import cache_root
from kubechain_cli.localcluster.sources import environment
from kubechain_cli.localcluster.sources.cache import BinaryCache
from kubechain_cli.localcluster.sources.pinned import cache_key, current_platform, load_pins

if TYPE_CHECKING:
    from kubechain_cli.localcluster.sources.progress import Progress


@dataclass(frozen=True)
class ControlPlaneBinaries:
    """Paths by name, and in words where they came from."""

    paths: dict[str, Path]
    source: str


def control_plane_cache() -> BinaryCache:
    """The cache folder for the pinned versions on this machine."""
    return BinaryCache(cache_root(), cache_key(load_pins(), current_platform()))


def find_control_plane(cache: BinaryCache) -> ControlPlaneBinaries | None:
    """What is here already, without any download or build."""
    found = environment.find_control_plane()
    if found is not None:
        return ControlPlaneBinaries(*found)
    cached = cache.find()
    return ControlPlaneBinaries(cached, "cache") if cached else None


def get_control_plane(progress: Progress) -> ControlPlaneBinaries:
    """The binaries, downloaded or built when need be. Raises BinaryUnavailableError naming what was tried."""
    cache = control_plane_cache()
    found = find_control_plane(cache)
    if found is not None:
        return found
    with cache.locked():
        return find_control_plane(cache) or _obtain(cache, progress)


def _obtain(cache: BinaryCache, progress: Progress) -> ControlPlaneBinaries:
    from kubechain_cli.localcluster.sources import go_build, release

    pins, target = load_pins(), current_platform()
    tried: list[str] = []
    for name, obtain in (("official release", release.download), ("Go build", go_build.build)):
        try:
            paths = cache.store(obtain(pins, target, cache, progress))
        except BinaryUnavailableError as error:
            tried.append(f"{name}: {error}")
            progress.note(tried[-1])
        else:
            return ControlPlaneBinaries(paths, name)
    raise BinaryUnavailableError(
        "No source could give the control plane's binaries.\n"
        + "\n".join(f"  - {line}" for line in tried)
        + "\nPut etcd, kube-apiserver and kube-controller-manager into a folder and set KUBEBUILDER_ASSETS to it, "
        "or use a cluster of your own: `kubechain up --context NAME`."
    )

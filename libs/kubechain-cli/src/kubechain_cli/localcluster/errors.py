"""What can go wrong between ``kubechain up`` and a ready cluster. Each text tells the user what is wrong, what to do.

LocalClusterError
├── BinaryUnavailableError    no source could give a binary
│   ├── DownloadError         the official download failed (retryable)
│   └── BuildError            the Go build failed
├── ProcessFailedError        a process died or never got ready while the cluster came up
├── AlreadyRunningError       another command or supervisor holds the state directory
└── ClusterApiError           the API server refused what we sent it
"""

from __future__ import annotations


class LocalClusterError(Exception):
    """Root of the tree. ``retryable`` says whether the same command may work when simply run again."""

    retryable = False


class BinaryUnavailableError(LocalClusterError):
    """No source could give a binary."""


class DownloadError(BinaryUnavailableError):
    """A download failed or its checksum was wrong; what arrived so far is kept where that is safe."""

    retryable = True


class BuildError(BinaryUnavailableError):
    """The Go build of the control plane failed."""


class ProcessFailedError(LocalClusterError):
    """A process died or never got ready while the cluster came up."""


class AlreadyRunningError(LocalClusterError):
    """Another command or supervisor holds the state directory."""


class ClusterApiError(LocalClusterError):
    """The API server refused what we sent it."""

"""``python -m kubechain_cli`` is the same as ``kubechain``."""

from __future__ import annotations

from kubechain_cli.main import main

main()

"""Kubernetes quantities: "500m", "0.5", "512Mi", "1G", "2e3" (pure).

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

from __future__ import annotations

import re
from fractions import Fraction

_FORM = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?", re.ASCII)
_DECIMAL = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}


def parse_quantity(value: int | str) -> Fraction:
    """Exact. Raises ValueError."""
    match = _FORM.fullmatch(str(value))
    if match is None:
        raise ValueError(f'"{value}" is not a quantity')
    number, suffix, exponent = match.groups()
    if suffix in _BINARY:
        return Fraction(number) * Fraction(1024 ** _BINARY[suffix])
    return Fraction(f"{number}e{_DECIMAL[suffix] if suffix else exponent or 0}")

"""How gates say numbers: as short as they can be and still tell unequal values apart."""

from __future__ import annotations


def numbers(*values: float) -> list[str]:
    """Say each value with four digits, or with as many as it takes for unequal values to read unequal."""
    different = len(set(values))
    for digits in range(4, 18):
        said = [f"{value:.{digits}g}" for value in values]
        if len(set(said)) == different:
            return said
    return [repr(value) for value in values]


def percent(share: float, beyond: float | None = None) -> str:
    """Say a share such as ``14.6 %``; with *beyond*, as many digits as it takes to read unequal to that."""
    other = 0.0 if beyond is None else beyond
    for digits in range(3, 18):
        said = f"{share * 100:.{digits}g}"
        if beyond is None or share == beyond or said != f"{other * 100:.{digits}g}":
            return f"{said} %"
    return f"{share * 100!r} %"

"""Tables as programs write them, for tests: columns of all kinds, in all styles."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Cells = list[str | None]
MAYBE_MISSING = ("NA", "NaN", "null", "None", "")


class Style(NamedTuple):
    """How a program writes tables: a separator, whether text is quoted, what stands for a gap."""

    separator: str
    quotes_text: bool
    gap: str


STYLES = {
    "pandas": Style(",", False, ""),
    "R": Style(",", True, "NA"),
    "R, csv2": Style(";", True, "NA"),
    "spreadsheet": Style(";", False, ""),
    "tabs": Style("\t", False, "null"),
}


def _levels(*levels: str) -> Callable[[np.random.Generator, int], Cells]:
    return lambda rng, n: [levels[i] for i in rng.integers(len(levels), size=n)]


def _dates(form: str) -> Callable[[np.random.Generator, int], Cells]:
    def draw(rng: np.random.Generator, n: int) -> Cells:
        days = np.datetime64("2019-01-31") + rng.integers(0, 900, size=n - 1)
        stamps = [np.datetime64("2019-01-31"), *days]  # a day that cannot be a month
        return [stamp.astype("datetime64[s]").item().strftime(form) for stamp in stamps]

    return draw


def _formatted(form: str, scale: float = 1e4) -> Callable[[np.random.Generator, int], Cells]:
    return lambda rng, n: [form.format(value) for value in rng.exponential(scale, n)]


def _european(rng: np.random.Generator, n: int) -> Cells:
    swap = str.maketrans(",.", ".,")
    return [f"{value:,.2f}".translate(swap) for value in rng.exponential(1e4, n)]


KINDS: dict[str, Callable[[np.random.Generator, int], Cells]] = {
    "floats": _formatted("{}"),
    "whole numbers": lambda rng, n: [str(value) for value in rng.integers(-9, 99, n)],
    "powers of ten": _formatted("{:.3e}"),
    "thousands": lambda rng, n: [f"{value:,}" for value in rng.integers(0, 10**7, n)],
    "thousands with blanks": lambda rng, n: [
        f"{value:,}".replace(",", "\u00a0") for value in rng.integers(0, 10**7, n)
    ],
    "currency": _formatted("${:,.2f}"),
    "euro": lambda rng, n: [f"{text} €" for text in _european(rng, n)],
    "per cent": _formatted("{:.1f}%", 20),
    "decimal commas": _european,
    "units": _formatted("{:.1f} kg", 50),
    "truth": _levels("TRUE", "FALSE"),
    "yes": _levels("yes", "no"),
    "truth and unknown": _levels("TRUE", "FALSE", "unknown"),
    "leading zeros": _levels("01", "02", "10"),
    "colours": _levels("red", "green", "blue, dark", 'so-called "grey"'),
    "years or text": _levels("0", "1", "2", "3+"),
    "missing words": _levels("NA", "None", "null", "DE"),
    "many levels": lambda rng, n: [f"level {value}" for value in rng.geometric(0.1, n)],
    "lines": _levels("one\nline", "two"),
    "ISO dates": _dates("%Y-%m-%d"),
    "times": _dates("%Y-%m-%dT%H:%M:%SZ"),
    "German dates": _dates("%d.%m.%Y"),
    "American dates": _dates("%m/%d/%Y"),
    "dates in words": _dates("%d-%b-%y"),
}


def draw_cells(kind: str, n: int, seed: int, gaps: float) -> Cells:
    """Draw the cells of a column, None where a value is missing."""
    rng = np.random.default_rng([seed, *kind.encode()])
    cells = KINDS[kind](rng, n)
    return [None if gap else cell for cell, gap in zip(cells, rng.random(n) < gaps, strict=True)]


def record(cells: Sequence[str | None], style: Style) -> str:
    """Write one row."""
    return style.separator.join(_written(cell, style) for cell in cells)


def _written(cell: str | None, style: Style) -> str:
    if cell is None:
        return style.gap
    is_text = not cell.replace(".", "").replace("-", "").replace("e+", "").isdigit()
    special = any(character in cell for character in f'"\n{style.separator}')
    if special or cell in MAYBE_MISSING or (style.quotes_text and is_text):
        return '"' + cell.replace('"', '""') + '"'
    return cell

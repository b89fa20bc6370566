"""Figures inside a page: SVG files as elements."""

from __future__ import annotations

import re

from markupsafe import Markup

_LEAST_SCALE = 0.66  # of a figure's natural size; below that its text is too small, so it scrolls


def inline(svg: str, prefix: str) -> Markup:
    """Turn an SVG file into an element of a page.

    Parameters
    ----------
    svg : str
        The content of the file, as matplotlib writes it.
    prefix : str
        Put before every identifier, so that those of several figures differ.

    Returns
    -------
    Markup
        The element; it fills its box as far as its text stays legible.

    Examples
    --------
    >>> from flattest.pages.svg import inline
    >>> svg = '<?xml version="1.0"?><svg width="72pt" height="9pt"><path id="a"/></svg>'
    >>> str(inline(svg, "one"))
    '<svg style="max-width: 96px; min-width: 63px" aria-hidden="true"><path id="one-a"/></svg>'
    """
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    head, body = svg.split(">", 1)
    width = re.search(r'\bwidth="([\d.]+)pt"', head)
    assert width is not None, "matplotlib gives the width of a figure in points"
    natural = float(width[1]) * 96 / 72
    style = f"max-width: {natural:.0f}px; min-width: {_LEAST_SCALE * natural:.0f}px"
    head = re.sub(r'\s+(width|height|version)="[^"]*"', "", head)
    # The file is matplotlib's, with all text escaped.
    return Markup(f'{head} style="{style}" aria-hidden="true">{body}'.strip())

"""Formulas as MathML, which browsers show by themselves: no script, and nothing to download.

docutils translates the LaTeX; a formula that it does not understand is a warning, and so an error.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError, latex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

logger = logging.getLogger(__name__)

# Where docutils reads LaTeX in its own way, and what it reads as LaTeX does.
_DIFFERENCES = (
    (r"\\dots(?![a-z])", r"\\ldots"),  # not known
    (r"\\([dt]?frac)(\d)(\d)", r"\\\1{\2}{\3}"),  # taken for one number
    (r"(\\operatorname\{\w+\})\s+(?=\w|\\[a-zA-Z])", r"\1\\,"),  # set without a space
)


def _mathml(node: nodes.Element, *, display: bool) -> str:
    """Translate one formula."""
    try:
        text = node.astext()
        for pattern, replacement in _DIFFERENCES:
            text = re.sub(pattern, replacement, text)
        return latex2mathml.tex2mathml(text, as_block=display)
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        return ""


def visit_inline(writer: Any, node: nodes.Element) -> None:
    """Write a formula in a line."""
    writer.body.append(_mathml(node, display=False))
    raise nodes.SkipNode


def visit_block(writer: Any, node: nodes.Element) -> None:
    """Write a formula of its own, in a box that scrolls on narrow screens."""
    writer.body.append(f'<div class="formula">{_mathml(node, display=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

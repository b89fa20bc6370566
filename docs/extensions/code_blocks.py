"""Code without the empty line that ends an example for doctest."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def strip(app: Sphinx, document: nodes.document) -> None:
    """Remove what is empty at the end of code blocks."""
    for block in document.findall(nodes.literal_block):
        if block.rawsource == block.astext():  # else it is no plain code
            text = block.rawsource.rstrip()
            block.rawsource, block.children = text, []
            block += nodes.Text(text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Strip as soon as a page is read."""
    app.connect("doctree-read", strip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

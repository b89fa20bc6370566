"""Names in docstrings.

Single backticks become a link for a public name of flattest, and code for everything else. In the
types of numpydoc, names such as ``n_directions_`` would be taken for links of reStructuredText.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

import flattest

_SHAPE = re.compile(r"\bof shape \([^()]*\)")


def name(
    role: str, rawtext: str, text: str, lineno: int, inliner: Any, options: Any = None, *_: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Make a link to the page of a public name, and code of everything else."""
    code = nodes.literal(rawtext, text)
    if text not in flattest.__all__ or text.startswith("_"):
        return [code], []
    reference = addnodes.pending_xref(
        rawtext, code, refdomain="py", reftype="obj", reftarget=f"flattest.{text}", refwarn=True
    )
    return [reference], []


def escape_shapes(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]):
    """Escape the last underscore of names in shapes."""
    for number, line in enumerate(lines):
        lines[number] = _SHAPE.sub(lambda found: re.sub(r"_(?=[,) ])", r"\\_", found[0]), line)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register both, the second behind numpydoc."""
    app.add_role("name", name)
    app.connect("autodoc-process-docstring", escape_shapes, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

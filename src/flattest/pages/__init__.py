"""Web pages of one file: their look, numbers in them, and figures inside them."""

from flattest.errors import require

require("jinja2", extra="cli", purpose="A report")

from flattest.pages.numbers import duration, estimate, exact, powers
from flattest.pages.rendering import render
from flattest.pages.svg import inline

__all__ = ["duration", "estimate", "exact", "inline", "powers", "render"]

"""From a template to a page, in the look that all pages have (`style.css`)."""

from __future__ import annotations

from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from flattest.pages.numbers import duration, estimate, exact, powers
from flattest.wording import count


def render(package: str, template: str, **values: Any) -> str:
    """Fill a template.

    Parameters
    ----------
    package : str
        Where the template lies, such as ``"flattest.study"``.
    template : str
        Its name. It may include ``style.css``, and use the filters `estimate`, `exact`, `powers`,
        `seconds` and `count`.
    **values
        What it needs; text is escaped.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> from flattest.pages import render
    >>> "font-variant-numeric" in render("flattest.pages", "style.css")
    True
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("flattest.pages", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        estimate=estimate, exact=exact, powers=powers, seconds=duration, count=count
    )
    return environment.get_template(template).render(**values)

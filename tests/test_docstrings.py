"""Every public object has a numpydoc docstring with parameters, returns and an example."""

import dataclasses
import enum
import inspect
import tomllib
from pathlib import Path
from typing import Any

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import validate

import flattest

PYPROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))
CHECKS = set(PYPROJECT["tool"]["numpydoc_validation"]["checks"])
# What a method must have besides: less than a public name, whose page shows its example.
METHOD_CHECKS = {"GL08", "SS03", "PR02", "PR03"}

PUBLIC = {
    name: getattr(flattest, name) for name in flattest.__all__ if callable(getattr(flattest, name))
}
METHODS = {
    f"{name}.{attribute}": getattr(cls, attribute)
    for name, cls in PUBLIC.items()
    if inspect.isclass(cls)
    for attribute, member in vars(cls).items()
    if not attribute.startswith("_")
    and (inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod))
}


def _documented_attributes(cls: type) -> set[str]:
    return {
        name
        for names, _, _ in get_doc_object(cls)["Attributes"]
        for name in (names or "").split(", ")
    }


def _not_applicable(obj: Any) -> set[str]:
    """Return the checks that a kind of object is excused from."""
    if not inspect.isclass(obj):
        return set()
    # Members and messages, not calls: nothing to construct and no example to run.
    if issubclass(obj, enum.Enum | Warning | Exception):
        return {"PR01", "PR02", "PR03", "EX01"}
    # A result that users receive and do not build lists its fields as attributes instead.
    if dataclasses.is_dataclass(obj):
        fields = {field.name for field in dataclasses.fields(obj) if field.init}
        if fields <= _documented_attributes(obj):
            return {"PR01", "PR02", "PR03"}
    return set()


def _errors(path: str, checks: set[str]) -> list[str]:
    return [f"{code}: {text}" for code, text in validate(path)["errors"] if code in checks]


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_names_follow_numpydoc(name: str) -> None:
    errors = _errors(f"flattest.{name}", CHECKS - _not_applicable(PUBLIC[name]))
    assert not errors, f"flattest.{name}\n" + "\n".join(errors)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_public_methods_are_documented(name: str) -> None:
    errors = _errors(f"flattest.{name}", METHOD_CHECKS)
    assert not errors, f"flattest.{name}\n" + "\n".join(errors)


def test_everything_listed_exists_once() -> None:
    assert len(flattest.__all__) == len(set(flattest.__all__))
    missing = [name for name in flattest.__all__ if not hasattr(flattest, name)]
    assert not missing, f"flattest.__all__ lists {missing}, which do not exist"

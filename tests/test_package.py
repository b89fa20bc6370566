"""What makes flattest a package: its metadata, its markers, and the versions it speaks of."""

import importlib.metadata
import sys
import tomllib
from pathlib import Path

import pytest
from oldest_versions import oldest_versions
from packaging.requirements import Requirement
from typer.testing import CliRunner

import flattest
from flattest.commands.app import app
from flattest.commands.versions import versions

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def test_versions_are_those_that_are_loaded() -> None:
    import torch

    found = versions()
    assert found["flattest"] == flattest.__version__
    assert torch.__version__.startswith(found["torch"])  # which may name the build besides
    assert found["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert list(found)[-1] == "platform"


def test_versions_say_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert versions()["scikit-learn"] == "not installed"


def test_the_command_prints_one_line_each() -> None:
    done = CliRunner().invoke(app, ["--versions"])
    assert done.exit_code == 0
    assert dict(line.split(maxsplit=1) for line in done.stdout.splitlines()) == versions()


def test_every_requirement_has_a_lower_bound_that_is_tried() -> None:
    tools = {"beartype", "hypothesis", "mypy", "numpydoc", "pandas-stubs", "pre-commit", "pytest"}
    tools |= {"pytest-xdist", "ruff"}  # only those who work on flattest need them
    requirements = [Requirement(text) for texts in EXTRAS.values() for text in texts]
    requirements += [Requirement(text) for text in PROJECT["dependencies"]]
    for requirement in requirements:
        if requirement.name != "flattest" and requirement.name not in tools:
            assert oldest_versions()[requirement.name] in str(requirement.specifier), requirement


def test_extras_build_on_extras_that_exist() -> None:
    for texts in EXTRAS.values():
        for requirement in map(Requirement, texts):
            assert requirement.extras <= EXTRAS.keys()


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(flattest.__file__).parent / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]


def test_the_licence_is_where_the_metadata_says() -> None:
    assert all((ROOT / name).is_file() for name in PROJECT["license-files"])


def test_the_citation_has_the_version() -> None:
    assert f"version: {flattest.__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")

"""Print the oldest versions that the metadata admits, as constraints for pip: see `make oldest`."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def oldest_versions() -> dict[str, str]:
    """Return the lower bound of every requirement that has one, those of the extras included."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = [entry for entries in project["optional-dependencies"].values() for entry in entries]
    bounds = (
        re.fullmatch(r"([\w-]+)>=([\w.]+)", entry) for entry in project["dependencies"] + extras
    )
    return {bound[1]: bound[2] for bound in bounds if bound}


if __name__ == "__main__":
    # Arguments such as torch==2.13.0 replace a version that is not to be had.
    instead = dict(argument.split("==") for argument in sys.argv[1:])
    print(
        *(f"{name}=={version}" for name, version in (oldest_versions() | instead).items()), sep="\n"
    )

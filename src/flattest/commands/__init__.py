"""The command line: one file per command, what they share, and the entry point.

`app` puts the commands together. Each command's file holds its options and what it prints; all that
takes long to import, torch first of all, is imported by the functions that need it, so that help
and wrong options are answered at once.
"""

from __future__ import annotations

import sys

from flattest.errors import MissingPackageError, require


def main() -> None:
    """Run the command line; the entry point of the `flattest` script."""
    try:
        for package in ("typer", "rich"):
            require(package, extra="cli", purpose="The command line")
    except MissingPackageError as error:
        sys.exit(f"Error: {error}")
    from flattest.commands.app import run

    run()

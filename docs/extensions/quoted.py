"""What pages quote from the repository, written anew into `docs/quoted/` for each build.

The figures of the benchmarks come from the stored results, the claims from the study, the options
of the commands from the commands themselves: no page can say something else than these.
"""

from __future__ import annotations

import inspect
import json
import statistics
from pathlib import Path
from typing import Any

import typer
from sphinx.application import Sphinx


def figures() -> str:
    """Quote the benchmark figures."""
    import quote

    return quote.quotation()


def environments() -> str:
    """List the files of results and where they were measured."""
    from environment import RESULTS

    rows = ["| file | date | processor | PyTorch | flattest |", "|---|---|---|---|---|"]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))["environment"]
        cells = (found.get(key, "") for key in ("date", "processor", "torch", "flattest"))
        rows.append(f"| `{path.name}` | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def laplace() -> str:
    """Compare the backends of laplace-torch, from the stored results."""
    import quote

    cells: dict[str, dict[str, str]] = {}
    fits = quote.read("laplace")["results"]["fits"]
    for row in fits:
        title = f"{row['network']}, {row['parameters']:,} parameters"
        cells.setdefault(title, {})[row["backend"]] = quote.fate(row)
    backends = list(dict.fromkeys(name for row in cells.values() for name in row))
    lines = [
        f"| network | {' | '.join(f'`{name}`' for name in backends)} |",
        "|---" * (1 + len(backends)) + "|",
    ]
    for title, found in cells.items():
        lines.append(f"| {title} | {' | '.join(found.get(name, '') for name in backends)} |")
    references = {r["network"]: r["reference"] for r in fits if "reference" in r}
    dense = [network for network, reference in references.items() if reference == "Jacobians"]
    note = f"Errors are relative to dense Jacobians in float64 for {', '.join(dense)}"
    if len(dense) < len(references):
        note += ", to flattest's own diagonal in float64 for the others"
    lines += ["", f"{note}."]
    return "\n".join([*lines, ""])


def monitor() -> str:
    """Say what share of a training the monitor takes, from the stored results."""
    import quote

    rows = quote.read("monitor")["results"]
    every = list(rows[0]["shares"])
    lines = [
        "| network | minimum over scales | training step | measurement | "
        + " | ".join(f"every {k} steps" for k in every)
        + " |",
        "|---" * (4 + len(every)) + "|",
    ]
    for row in rows:
        shares = " | ".join(f"{row['shares'][k]:.1%}" for k in every)
        wanted = "no" if row["symmetry"] == "none" else "yes"
        lines.append(
            f"| {row['network']} | {wanted} | {row['step_seconds']:.2g} s "
            f"| {row['measurement_seconds']:.2g} s | {shares} |"
        )
    return "\n".join([*lines, ""])


def flat() -> str:
    """Compare the orbit minima and the test errors of the stored interpolators."""
    import quote

    lines = []
    for result in quote.read("interpolate")["results"]:
        ratio, error = (
            statistics.median(trial[name] for trial in result["trials"])
            for name in ("ratio", "test_error")
        )
        options = ", ".join(f"{name}={value:g}" for name, value in result["options"].items())
        lines.append(
            f"| {', '.join(result['links'])} | {result['activation']} "
            f"| {result['method']}{f' ({options})' * bool(options)} | {ratio:.3g} | {error:.1e} |"
        )
    head = "| data: links | network | method | orbit minimum over the bound | test error |"
    return "\n".join([head, "|---|---|---|---|---|", *lines, "", "Medians over the seeds.", ""])


def methods() -> str:
    """List the interpolators with their options and what they are."""
    from flattest.interpolators import METHODS

    rows = ["| method | options | what it does |", "|---|---|---|"]
    for name, function in METHODS.items():
        options = ", ".join(
            f"`{option.name}={option.default!r}`"
            for option in inspect.signature(function).parameters.values()
            if option.kind is option.KEYWORD_ONLY
        )
        rows.append(f"| `{name}` | {options} | {inspect.getdoc(function).splitlines()[0]} |")
    return "\n".join(rows) + "\n"


def claims() -> str:
    """List the claims of the study with their questions and their limits."""
    from flattest.study.claims import CLAIMS

    return "\n".join(
        f"### {claim.title}\n\n`flattest reproduce {claim.name}`\n\n{claim.question}\n\n"
        f"*How.* {claim.method}\n\n*Limits.* {claim.limits}\n"
        for claim in CLAIMS.values()
    )


def commands() -> str:
    """Show the help of every command."""
    from flattest.commands.app import app

    parts: list[str] = []

    def add(command: Any, name: str) -> None:
        context = typer.Context(command, info_name=name, max_content_width=92, terminal_width=92)
        level = "#" * (1 + len(name.split()))
        parts.append(f"{level} `{name}`\n\n```text\n{command.get_help(context).strip()}\n```\n")
        for below, inner in getattr(command, "commands", {}).items():
            add(inner, f"{name} {below}")

    add(typer.main.get_command(app), "flattest")
    return "\n".join(parts)


PARTS = {
    "figures.md": figures,
    "environments.md": environments,
    "flat.md": flat,
    "laplace.md": laplace,
    "monitor.md": monitor,
    "methods.md": methods,
    "claims.md": claims,
    "commands.md": commands,
}


def write(app: Sphinx) -> None:
    """Write every part that has changed."""
    folder = Path(app.srcdir) / "quoted"
    folder.mkdir(exist_ok=True)
    for name, part in PARTS.items():
        path, text = folder / name, part()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Write before anything is read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""What pages quote from the repository, written anew into `docs/quoted/` for each build.

The figures of the benchmarks come from the stored results, the claims from the study, the options
of the commands from the commands themselves: no page can say something else than these.
"""

from __future__ import annotations

import functools
import inspect
import json
import statistics
from collections.abc import Callable
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


def traces() -> str:
    """Show what a trace to 1 % takes, by package and network, in passes and in MB."""
    import quote

    record = quote.read("trace")["results"][0]
    problems = list(record["truths"])
    found = {(row["problem"], row["way"]): row for row in record["ways"]}
    rows = [f"| | {' | '.join(problems)} |", "|---" * (1 + len(problems)) + "|"]
    for way in dict.fromkeys(row["way"] for row in record["ways"]):
        cells = [_passes(found.get((problem, way), {})) for problem in problems]
        rows.append(f"| {way} | {' | '.join(cells)} |")
    lines = [*rows, ""]
    if "memory" in record:
        held = ", ".join(
            f"{row['memory_mb']:.0f} MB with "
            + (f"`batch_size={row['batch_size']}`" if row["batch_size"] else "the size chosen")
            for row in record["memory"]
        )
        lines += [f"The exact diagonal of ResNet-20 for 64 images holds {held}.", ""]
    if "gpt2" in record:
        gpt2 = record["gpt2"]
        lines += [
            f"A language model of GPT-2's size ({gpt2['parameters'] / 1e6:.0f} million parameters, "
            f"random weights, {gpt2['tokens']} tokens), its Gauss-Newton trace from drawn columns: "
            f"{gpt2['seconds']:.0f} s of processor time, {gpt2['peak_memory_mb'] / 1e3:.1f} GB in "
            f"all, a standard error of {gpt2['standard_error'] / gpt2['gauss_newton']:.1%}.",
            "",
        ]
    return "\n".join(lines)


_NO_SCALE = 0.05  # of tr G: below it tr H says nothing of how large errors are


def residual() -> str:
    """Show the noise of one probe of the residual part, from the stored results."""
    import quote

    lines = [
        "| network | weights | tr H / tr G | error, of tr H | error, of tr G |",
        "|---|---|---|---|---|",
    ]
    for row in quote.read("residual")["results"]:
        ratio = 1 + row["residual"] / row["gauss_newton"]
        cells = ["exact", "exact"]
        if row["double_backwards"]:
            names = ("per_double_backward", "per_double_backward_of_gauss_newton")
            cells = [f"{row[name]:.1%}" for name in names]
            cells[0] = cells[0] if abs(ratio) > _NO_SCALE else "(tr H is about 0)"
        weights = "trained" if row["trained"] else "random"
        lines.append(f"| {row['network']} | {weights} | {ratio:.3f} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _passes(row: dict[str, Any]) -> str:
    """Say what one way took on one network."""
    if "error" in row:
        return "too slow" if row["error"].startswith("stopped") else row["error"].split(":")[0]
    if not row:
        return ""
    if row["wrong"]:
        return f"wrong by {row['relative_bias']:.0%}"
    return f"{row['passes_to_target']:,.0f} ({row['memory_mb']:.0f})"


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
        f"(claim-{claim.name})=\n### {claim.title}\n\n"
        f"Claim `{claim.name}`, run by `flattest reproduce {claim.name}`.\n\n{claim.question}\n\n"
        f"*How.* {claim.method}\n\n*Thresholds.* {claim.thresholds}\n\n*Limits.* {claim.limits}\n"
        for claim in CLAIMS.values()
    )


def claim_names() -> str:
    """List the names of the claims, each a link to what it asks."""
    from flattest.study.claims import CLAIMS

    return "".join(
        f"- [`{name}`](#claim-{name}): {claim.title}\n" for name, claim in CLAIMS.items()
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


def _uses() -> dict[str, Any]:
    import quote

    return quote.read("uses")


def uses_run() -> str:
    """Say what was run for the study of uses."""
    found = _uses()
    environment, results = found["environment"], found["results"]
    parts = results["parts"].values()
    trials, done = (sum(part[key] for part in parts) for key in ("trials", "succeeded"))
    minutes = sum(part["seconds"] for part in parts) / 60
    return (
        f"The {results['size']} study: {done:,} of {trials:,} trials succeeded, "
        f"{minutes:.0f} minutes on one core of a busy machine ({environment['processor']}, PyTorch "
        f"{environment['torch']}, {environment['date']}).\n"
    )


def uses_verdicts() -> str:
    """Tabulate the verdicts of the study of uses."""
    from flattest.uses import USES

    lines = [
        "| | statement | estimate | 95 % interval | threshold | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, part in _uses()["results"]["parts"].items():
        lines.append(f"| | **[{USES[name].title}](#{_anchor(USES[name].title)})** | | | | |")
        for row in part["verdicts"]:
            interval = " to ".join(_number(row.get(key)) for key in ("low", "high"))
            sign = "≥" if row["bound"] == "at least" else "≤"
            lines.append(
                f"| {_MARKS[row['outcome']]} {row['outcome']} | {row['statement']} "
                f"| {_number(row.get('estimate'))} | {interval} | {sign} {row['threshold']:g} "
                f"| {row['n_seeds']} |"
            )
    return "\n".join(lines) + "\n"


_MARKS = {"holds": "✓", "fails": "✗", "undecided": "?"}


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _number(value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}".replace("-", "−")


def _uses_table(name: str) -> str:
    rows = _uses()["results"]["parts"][name]["table"]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_number(row.get(key)) for key in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def uses_tables() -> dict[str, Callable[[], str]]:
    """Return for each part of the study of uses what writes its table."""
    from flattest.uses import USES

    return {f"uses-{name}.md": functools.partial(_uses_table, name) for name in USES}


def uses_methods() -> dict[str, Callable[[], str]]:
    """Return for each part of the study of uses what writes question, method and limits."""
    from flattest.uses import USES

    def text(claim: Any) -> str:
        return f"{claim.question}\n\n*How.* {claim.method}\n\n*Limits.* {claim.limits}\n"

    return {
        f"uses-{name}-method.md": functools.partial(text, claim) for name, claim in USES.items()
    }


def rounding() -> str:
    """Quote the benchmark of rounding to few bits."""
    import quantisation_tables

    return quantisation_tables.tables()


PARTS: dict[str, Callable[[], str]] = {
    "figures.md": figures,
    "rounding.md": rounding,
    "environments.md": environments,
    "residual.md": residual,
    "traces.md": traces,
    "flat.md": flat,
    "laplace.md": laplace,
    "monitor.md": monitor,
    "methods.md": methods,
    "claims.md": claims,
    "claim-names.md": claim_names,
    "commands.md": commands,
    "uses-run.md": uses_run,
    "uses-verdicts.md": uses_verdicts,
}


def write(app: Sphinx) -> None:
    """Write every part that has changed."""
    folder = Path(app.srcdir) / "quoted"
    folder.mkdir(exist_ok=True)
    for name, part in {**PARTS, **uses_tables(), **uses_methods()}.items():
        path, text = folder / name, part()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Write before anything is read."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

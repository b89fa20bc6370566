"""Store what `flattest uses` has found, for the site: verdicts, tables and figures.

    python benchmarks/uses.py FOLDER

reads the folder of a finished study and writes `results/uses.json` and the figures of
`docs/uses.md`. The records themselves stay in the folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from environment import RESULTS, environment
from PIL import Image

DOCS = Path(__file__).parent.parent / "docs" / "uses"


def stored(folder: Path) -> dict[str, Any]:
    """Read verdicts, tables and counts."""
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if run["kind"] != "uses":
        raise SystemExit(f"{folder} is no folder of `flattest uses`.")
    verdicts = pd.read_csv(folder / "verdicts.csv")
    parts = {}
    for name, described in run["claims"].items():
        table = folder / f"{name}.csv"
        parts[name] = {
            "trials": described["trials"],
            "succeeded": described["succeeded"],
            "seeds": len(described["seeds"]),
            "seconds": described["seconds"],
            "verdicts": _rows(verdicts[verdicts["claim"] == name].drop(columns="claim")),
            "table": _rows(pd.read_csv(table)) if table.is_file() else [],
        }
    return {"size": run["size"], "parts": parts}


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows with numbers of four figures, less those that are missing."""
    return [
        {
            name: float(f"{value:.4g}") if isinstance(value, float) else value
            for name, value in row.items()
            if not pd.isna(value)
        }
        for row in frame.to_dict("records")
    ]


def main(folder: Path) -> None:
    """Write results and figures."""
    found = stored(folder)
    text = json.dumps({"environment": environment(), "results": found}, indent=1)
    (RESULTS / "uses.json").write_text(text + "\n", encoding="utf-8")
    DOCS.mkdir(exist_ok=True)
    for name in found["parts"]:
        with Image.open(folder / f"{name}.png") as figure:  # few colours: a third of the bytes
            figure.convert("RGB").quantize(128).save(DOCS / f"{name}.png", optimize=True)
    print(f"written: {RESULTS / 'uses.json'} and {len(found['parts'])} figures in {DOCS}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))

"""The README's examples run as doctests; its figures come from the stored benchmark results."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_readme_quotes_the_stored_results() -> None:
    script = (
        "import sys; sys.path.insert(0, 'benchmarks'); import quote; "
        "sys.stdout.reconfigure(encoding='utf-8'); print(quote.comparison(), end='')"
    )
    quoted = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert quoted in (ROOT / "README.md").read_text(encoding="utf-8"), "run benchmarks/quote.py"


def test_the_readme_is_read_in_one_sitting() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150


def test_the_table_of_coverage_is_the_stored_one():
    stored = (ROOT / "benchmarks" / "results" / "coverage.md").read_text("utf-8")
    assert stored in (ROOT / "docs" / "regressor.md").read_text("utf-8")

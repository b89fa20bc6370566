"""The environment that every benchmark stores beside its figures."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

import flattest as ft

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """Versions, machine and load."""
    return {
        "flattest": ft.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "date": time.strftime("%Y-%m-%d"),
    }


def write(path: Path, results: Any) -> None:
    """Write the results with the environment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {"environment": environment(), "results": results}
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path}")


def _processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

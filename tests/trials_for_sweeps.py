"""Trial functions for the tests of sweeps; without flattest, so that workers start fast."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

GATE = "gate"


@dataclass(frozen=True)
class Settings:
    a: float = 1.0
    b: int = 0
    behaviour: str = "works"
    folder: str = ""
    seconds: float = 0.0
    sizes: tuple[int, ...] = ()
    gated: bool = False


def trial(settings: Settings, seed: int) -> dict[str, object]:
    if settings.folder:
        # One byte per call: how often each seed was run, whatever became of it.
        with Path(settings.folder, f"ran-{settings.a:g}-{seed}").open("ab") as file:
            file.write(b"x")
    if settings.seconds:
        time.sleep(settings.seconds)
    # The test says by the file up to which seed trials may go on, so that nothing hangs on how
    # fast a machine is.
    while settings.gated and seed >= int(Path(settings.folder, GATE).read_text()):
        time.sleep(0.01)
    if settings.behaviour == "raises":
        raise ValueError(f"seed {seed} is unlucky")
    if settings.behaviour == "loops":
        while True:
            pass
    if settings.behaviour == "hangs":
        lock = threading.Lock()
        lock.acquire()
        while True:
            try:
                lock.acquire(timeout=1e6)
            except BaseException:
                continue
    if settings.behaviour == "dies":
        os._exit(9)
    if settings.behaviour == "nests":
        return {"value": [1, 2]}
    return {"value": settings.a * seed + settings.b, "name": f"s{seed}", "nan": float("nan")}


def plain(settings: dict[str, object], seed: int) -> dict[str, object]:
    return {"seen": len(settings), "twice": 2 * seed}

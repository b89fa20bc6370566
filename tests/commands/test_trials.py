"""The progress of trials: what was found says nothing of the pace, and a log gets few lines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flattest.commands.trials import trials_progress
from flattest.sweeps import Summary


class Clock:
    """A clock that each trial sets forward."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def summaries(found: int, new: list[str]) -> Iterator[Summary]:
    """Count as the engine does: what it finds in the store mixed with what it runs."""
    summary, left = Summary(), found
    for status in new:
        for _ in range(min(left, found // len(new) + 1)):
            summary, left = summary.with_result("done", found=True), left - 1
            yield summary
        summary = summary.with_result(status)
        yield summary


def test_a_log_has_a_first_line_and_few_more(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    new = ["done"] * 39
    new[4:6] = ["failed", "timed_out"]
    with trials_progress("quick reproduce", 160, 121, clock=clock) as progress:
        before = 0
        for summary in summaries(121, new):
            if summary.finished - summary.found > before:
                before += 1
                clock.now += 8.0
            progress(summary)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "160 trials, 121 of them found, 39 to do.",
        "quick reproduce: 129/160 1 failed, 1 timed out, 0:04:08 left",
        "quick reproduce: 137/160 1 failed, 1 timed out, 0:03:04 left",
        "quick reproduce: 145/160 1 failed, 1 timed out, 0:02:00 left",
        "quick reproduce: 153/160 1 failed, 1 timed out, 0:00:56 left",
    ]


def test_long_trials_get_a_line_at_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with trials_progress("a sweep", 1000, 0, clock=clock) as progress:
        for summary in summaries(0, ["done"] * 1000):
            clock.now += 60.0
            progress(summary)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == [
        "1,000 trials, 0 of them found, 1,000 to do.",
        "a sweep: 100/1,000, 15:00:00 left",
    ]
    assert len(lines) == 11


def test_results_of_another_run_beside_this_one_count(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with trials_progress("a sweep", 10, 2, clock=clock) as progress:
        clock.now = 60.0
        progress(Summary(done=6, found=5))  # three more than there were at the start
    assert capsys.readouterr().err.splitlines()[1:] == ["a sweep: 6/10, 0:01:00 left"]


def test_nothing_is_left_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with trials_progress("a sweep", 2, 2, clock=Clock()) as progress:
        for done in (1, 2):
            progress(Summary(done=done, found=done))
    assert capsys.readouterr().err.splitlines() == ["2 trials, 2 of them found, 0 to do."]

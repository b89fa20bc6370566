"""Progress without a terminal: plain lines, of which each says something new."""

import pytest

from flattest.progress import progress_bar


def test_plain_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = "{task.completed:.0f}/{task.total:.0f} steps, error {task.fields[error]:.1f}"
    with progress_bar("", text, shown=True, total=9, error=2.0) as bar:
        bar.update(description="searching")
        for _ in range(3):
            bar.advance()
        bar.update(description="fitting", total=8, error=0.5)
        bar.advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == ["searching", "fitting: 3/8 steps, error 0.5"]


def test_a_line_from_time_to_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flattest.progress._Lines._SECONDS", 0.0)
    with progress_bar("working", "{task.completed} of {task.total}", shown=True, total=2) as bar:
        bar.advance()
        bar.advance()
    assert capsys.readouterr().err.splitlines() == ["working: 1 of 2", "working: 2 of 2"]


def test_what_is_done_soon_is_not_worth_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("working", "steps", shown=True, total=2, patience=1e3) as bar:
        bar.update(description="more")
        bar.advance()
    assert capsys.readouterr() == ("", "")


def test_nothing_where_nothing_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("working", "steps", shown=False) as bar:
        bar.update(description="more")
        bar.advance()
    assert capsys.readouterr() == ("", "")

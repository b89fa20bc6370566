"""Progress by a clock of its own: plain lines of which each says something new, and the pace."""

import io
import re

import pytest

from flattest.progress import Pace, progress_bar


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    text = "{task.completed:.0f}/{task.total:.0f} steps, error {task.fields[error]:.1f}"
    with progress_bar("", text, shown=True, total=9, clock=clock, error=2.0) as bar:
        bar.update(description="searching")
        for _ in range(3):
            clock.wait(2.0)
            bar.advance()
        bar.update(description="fitting", total=8, error=0.5)
        bar.advance()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "searching",
        "fitting: 3/8 steps, error 0.5, 0:00:10 left",
    ]


def test_a_line_from_time_to_time(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    text = "{task.completed} of {task.total}"
    with progress_bar("working", text, shown=True, total=9, clock=clock) as bar:
        for _ in range(7):
            clock.wait(4.0)
            bar.advance()
    assert capsys.readouterr().err.splitlines() == [
        "working: 1 of 9, 0:00:32 left",
        "working: 4 of 9, 0:00:20 left",
        "working: 7 of 9, 0:00:08 left",
    ]


def test_what_is_done_soon_is_not_worth_a_line(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    options = {"shown": True, "total": 3, "patience": 5, "clock": clock}
    with progress_bar("working", "steps", **options) as bar:
        bar.update(description="more")
        clock.wait(4.9)
        bar.advance()
        assert capsys.readouterr() == ("", "")
        clock.wait(0.1)
        bar.advance()
    assert capsys.readouterr().err.splitlines() == ["more: steps, 0:00:03 left"]


def test_nothing_where_nothing_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("working", "steps", shown=False, opening="begins") as bar:
        bar.update(description="more")
        bar.advance()
    assert capsys.readouterr() == ("", "")


def test_the_rarer_of_a_time_and_a_share_of_what_there_was_to_do(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    options = {"shown": True, "total": 60, "completed": 20, "clock": clock}
    rarely = {"opening": "60 steps", "seconds": 60, "share": 0.25}
    with progress_bar("working", "{task.completed}", **options, **rarely) as bar:
        for _ in range(10):  # a quarter of the 40, but too soon
            clock.wait(5.0)
            bar.advance()
        for _ in range(14):  # a minute has passed; then the time has, but no quarter
            clock.wait(10.0)
            bar.advance()
    assert capsys.readouterr().err.splitlines() == [
        "60 steps",
        "working: 31, 0:02:39 left",
        "working: 41, 0:02:25 left",
    ]


def test_a_bar_on_a_terminal_shows_the_same_time_left(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    text = "{task.completed}/{task.total}"
    options = {"shown": True, "total": 160, "completed": 121, "clock": clock}
    with progress_bar("working", text, opening="160 steps", **options) as bar:
        clock.wait(35.0)
        bar.advance(2)
    printed = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert printed.startswith("160 steps\n")
    assert "121/160 -:--:-- left" in printed
    assert "123/160 0:10:48 left" in printed  # 37 times 17.5 s, whatever was there before


def test_the_pace_forgets_what_is_long_ago_and_what_was_another_thing(clock: Clock) -> None:
    pace = Pace(1000, clock=clock)
    assert pace.seconds(10) is None
    for done in range(1001, 1101):
        clock.wait(1.0)
        pace.see(done)
    assert pace.seconds(10) == 10
    for done in range(1101, 1201):
        clock.wait(20.0)
        pace.see(done)
    assert pace.seconds(10) == 200
    pace.see(3)
    assert pace.seconds(10) is None
    clock.wait(6.0)
    pace.see(5)
    assert pace.seconds(10) == 30


def test_the_pace_of_quick_steps_takes_little_memory_and_is_right(clock: Clock) -> None:
    pace = Pace(clock=clock)
    for done in range(1, 20_001):
        clock.wait(1 / 256)
        pace.see(done)
    assert pace.seconds(256) == pytest.approx(1.0)
    assert len(pace._seen) < 100

"""What is said of a long loop where no terminal shows a bar."""

from __future__ import annotations

import pytest

from sam_spl import progress
from sam_spl.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_line_a_minute_goes_into_a_file(clock, capsys):
    with Progress("testing", "images", 4, done=1) as bar:
        for second in (59.0, 60.0, 119.9, 3661.0):
            clock[0] = second
            bar.add(note=f"loss {second:g}" if second > 100 else "")
            bar.expect(1)
    assert capsys.readouterr().err.splitlines() == [
        "testing: 3 of 5 images, 0:01:00",
        "testing: 5 of 7 images, 1:01:01, loss 3661",
    ]


def test_another_process_and_a_short_loop_say_nothing(clock, capsys):
    with Progress("testing", "images", 4, shown=False) as hidden, Progress("testing", "images", 4) as short:
        short.add(4)
        clock[0] = 600.0
        hidden.add(4)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar(clock, monkeypatch, capsys):
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("testing", "images", 4) as bar:
        clock[0] = 600.0
        bar.add(2)
        shown = capsys.readouterr().err
        bar._bar.refresh()
    told = shown + capsys.readouterr().err
    assert "testing:  50%" in told
    assert "2 of 4" not in told

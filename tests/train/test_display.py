"""What is shown of a run: five numbers, warnings above them, and never an exception."""

import io

import pytest
from rich.console import Console

from vergence.train.display import SHOWN, Display

LINE = dict.fromkeys(SHOWN.values(), 0.25)


def on(file, *, terminal, steps=20, width=80):
    """A display that writes to `file`, a terminal or not."""
    console = Console(file=file, force_terminal=terminal, width=width, color_system=None, legacy_windows=False)
    return Display(steps, console=console)


def test_plain_logs_have_a_line_every_ten_steps():
    file = io.StringIO()
    with on(file, terminal=False) as display:
        for step in range(1, 21):
            display(step, LINE, 2.0)
    lines = file.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["1/20", "10/20", "20/20"]
    assert lines[0] == "step    1/20  " + "  ".join(f"{name} 0.250" for name in SHOWN) + "  2.0 s"
    assert "\x1b" not in file.getvalue()


def test_a_number_that_is_measured_seldom_stays_shown():
    file = io.StringIO()
    with on(file, terminal=False) as display:
        display(1, LINE | {"perception/kl_masked": 0.5}, 1.0)
        display(10, {"rewards/accuracy": 0.75}, 1.0)
    assert "accuracy 0.750" in file.getvalue().splitlines()[1]
    assert "KL masked 0.500" in file.getvalue().splitlines()[1]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_terminal_shows_all_five_numbers_in_its_width(width):
    file = io.StringIO()
    with on(file, terminal=True, width=width) as display:
        display(7, LINE, 2.0)
        display.live.refresh()
    shown = file.getvalue()
    assert "7/20" in shown
    assert "2.0 s" in shown
    assert all(name in shown for name in list(SHOWN)[: 3 if width < 80 else 5])


@pytest.mark.parametrize("terminal", [False, True])
def test_a_warning_is_a_line_of_its_own_and_no_markup(terminal):
    file = io.StringIO()
    with on(file, terminal=terminal, width=200) as display:
        display(1, LINE, 1.0)
        display.tell("warning at step 1, truncation: [red]cut[/red] from 0 to 0.3")
    assert "warning at step 1, truncation: [red]cut[/red] from 0 to 0.3" in file.getvalue()


class Gone(io.StringIO):
    """A terminal that was closed."""

    broken = False

    def write(self, text):
        if self.broken:
            raise OSError(5, "Input/output error")
        return super().write(text)

    def flush(self):
        if self.broken:
            raise BrokenPipeError


@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_that_is_gone_ends_nothing(terminal):
    file = Gone()
    with on(file, terminal=terminal) as display:
        display(1, LINE, 1.0)
        file.broken = True
        for step in range(2, 21):
            display(step, LINE | {"eval/accuracy": 0.5}, 1.0)
        display.tell("warning at step 20")


def test_quiet_is_quiet(capsys):
    with Display(20, quiet=True) as display:
        display(1, LINE | {"eval/accuracy": 0.5}, 1.0)
        display.tell("warning at step 1")
    assert capsys.readouterr() == ("", "")

"""What is said above and beside the bars."""

import io

from rich.console import Console
from rich.progress import Progress, TextColumn

from onlinerlhf.learner.training import progress
from onlinerlhf.learner.training.progress import Bars, reporter


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


def test_a_message_is_printed_as_it_is() -> None:
    output = io.StringIO()
    Bars(Progress(TextColumn(""), console=Console(file=output, width=100))).say("[/red] [rollout] :warning: 7")
    assert output.getvalue() == "[/red] [rollout] :warning: 7\n"


def test_a_detail_is_shown_as_it_is() -> None:
    output = Terminal()
    with reporter(output) as says:
        assert isinstance(says, progress.Bars)
        says.start("steps", 2).advance(detail="[/red] loss")
    assert "[/red]" in output.getvalue()

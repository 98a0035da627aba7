"""Progress from a job's process: one JSON line an event, written there and shown here."""

import json
from collections.abc import Mapping
from typing import TextIO

from onlinerlhf.learner.training.progress import Progress, Reporter


class Sender:
    """A reporter whose stages are shown by another process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._num_stages = 0

    def start(self, name: str, total: int) -> Progress:
        """A stage begins."""
        self._num_stages += 1
        self._send({"stage": self._num_stages, "name": name, "total": total})
        return _Stage(self, self._num_stages)

    def say(self, message: str) -> None:
        """One line."""
        self._send({"say": message})

    def advanced(self, stage: int, steps: int, detail: str) -> None:
        """Some more steps of a stage are done."""
        self._send({"stage": stage, "steps": steps, "detail": detail})

    def _send(self, event: Mapping[str, object]) -> None:
        print(json.dumps(event), file=self._stream, flush=True)


class _Stage:
    def __init__(self, sender: Sender, number: int) -> None:
        self._sender, self._number = sender, number

    def advance(self, *, detail: str = "", steps: int = 1) -> None:
        self._sender.advanced(self._number, steps, detail)


class Receiver:
    """Shows one process's events under its name."""

    def __init__(self, reporter: Reporter, *, name: str) -> None:
        self._reporter, self._name = reporter, name
        self._stages: dict[int, Progress] = {}

    def take(self, line: str) -> None:
        """One line that the process wrote. What is no event is shown as it is."""
        try:
            event = json.loads(line)
        except ValueError:
            event = {"say": line}
        if not isinstance(event, dict) or "say" in event:
            said = event["say"] if isinstance(event, dict) else line
            self._reporter.say(f"{self._name}: {said}")
        elif "name" in event:
            self._stages[event["stage"]] = self._reporter.start(f"{self._name}: {event['name']}", event["total"])
        else:
            self._stages[event["stage"]].advance(steps=event["steps"], detail=event["detail"])

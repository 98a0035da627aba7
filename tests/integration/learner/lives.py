"""Learner processes: each line of input holds a life's environment variables."""

import os

from integration.learner.forks import serve
from onlinerlhf.learner import app  # noqa: F401 - before the fork, so that each life finds it imported
from onlinerlhf.learner.__main__ import compose
from onlinerlhf.runtime import serving


def live(environment: dict[str, str]) -> None:
    os.environ.update(environment)
    serving.main("learner", compose)


if __name__ == "__main__":
    serve(live)

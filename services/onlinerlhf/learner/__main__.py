"""`python -m onlinerlhf.learner`."""

from onlinerlhf.runtime import serving


async def compose() -> None:
    """Import torch only once the process is really this service."""
    from onlinerlhf.learner import app

    await app.run()


if __name__ == "__main__":
    serving.main("learner", compose)

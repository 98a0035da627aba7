"""`python -m onlinerlhf.reward`."""

from onlinerlhf.runtime import serving


async def compose() -> None:
    """Import torch only once the process is really this service."""
    from onlinerlhf.reward import app

    await app.run()


if __name__ == "__main__":
    serving.main("reward", compose)

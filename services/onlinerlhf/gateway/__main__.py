"""`python -m onlinerlhf.gateway`."""

from onlinerlhf.runtime import serving


async def compose() -> None:
    """Import the room only once the process is really this service."""
    from onlinerlhf.gateway import app

    await app.run()


if __name__ == "__main__":
    serving.main("gateway", compose)

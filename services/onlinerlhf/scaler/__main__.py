"""`python -m onlinerlhf.scaler`."""

from onlinerlhf.runtime import serving


async def compose() -> None:
    """Import the room only once the process is really this service."""
    from onlinerlhf.scaler import app

    await app.run()


if __name__ == "__main__":
    serving.main("scaler", compose)

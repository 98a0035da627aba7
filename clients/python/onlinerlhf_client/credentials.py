"""The API key on its way into a call's metadata, and nowhere else."""

import os

API_KEY_VARIABLE = "ONLINERLHF_API_KEY"

Metadata = tuple[tuple[str, str], ...]


class Credentials:
    """What authenticates a call. Does not show the key."""

    def __init__(self, api_key: str | None) -> None:
        """`None`: the environment's ONLINERLHF_API_KEY; without it calls go out without a key."""
        key = os.environ.get(API_KEY_VARIABLE) if api_key is None else api_key
        if key is not None and not (key and key.isascii() and all("!" <= letter <= "~" for letter in key)):
            # gRPC would refuse it too, and name it.
            raise ValueError("the API key is empty or holds a blank, a line break or a character that is not ASCII")
        self._metadata: Metadata = () if key is None else (("authorization", f"Bearer {key}"),)

    @property
    def metadata(self) -> Metadata:
        """For a call."""
        return self._metadata

    def __repr__(self) -> str:
        return f"Credentials({'an API key' if self._metadata else 'no API key'})"

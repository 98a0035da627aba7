"""How a scan ends that did not end well."""

from onlinerlhf.core.errors import OnlineRLHFError


class ScreenFailed(OnlineRLHFError):
    """A text could not be scanned, so nobody may learn from it. The message never repeats the text."""

"""Personal data and secrets in prompts and responses: what is found, what is done about it, who looks.

`find` is pure and linear; `policy` says what becomes of a text; `scanner` runs it, and an optional engine in a process
of its own, and fails closed.
"""

from onlinerlhf.gateway.pii.detectors import find
from onlinerlhf.gateway.pii.findings import Finding, Kind

__all__ = ["Finding", "Kind", "find"]

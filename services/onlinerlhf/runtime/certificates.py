"""Certificates in files that change under a running process, as Kubernetes rotates them.

    stat (at most once a second) -> changed -> read all, check that they fit -> the new ones, for new connections
                                                      └ they do not: warn and count; the old ones go on

What is read is checked as a whole: certificates that parse, a key that is the first one's, and files that did not
change meanwhile. A swap that is half done is thus never used, and connections that are open live on in any case.
"""

import logging
import os
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from onlinerlhf.core.errors import StartupError
from onlinerlhf.runtime import metrics

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""Between two looks at the files."""
_MAX_READS: Final = 3
"""Of files that change while they are read."""

_Signature: TypeAlias = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """How to call a room that speaks TLS. Changed files count for new connections."""

    cert: Path | None = None
    """Own certificate, presented where the other side asks for one."""
    key: Path | None = None
    ca: Path | None = None
    """Whom to trust. None: the authorities that gRPC brings."""
    server_name: str | None = None
    """Name that the other side's certificate must have. None: the target's host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What the files held when they were last read, in PEM."""

    cert: bytes | None
    key: bytes | None
    ca: bytes | None
    context: ssl.SSLContext
    """The same for a server of the standard library's; asks for no certificates unless told to."""


class CertificateFiles:
    """One set of files, read at once and again when they change. To be used from any thread."""

    def __init__(
        self,
        *,
        role: str,
        cert: Path | None,
        key: Path | None,
        ca: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`role` says in log lines and metrics who uses them. Raises StartupError, which names the file at fault."""
        self._role = role
        self._cert, self._key, self._ca = cert, key, ca
        self._clock = clock
        self._lock = threading.Lock()
        self._current, self._seen = self._read()
        self._looked = clock()

    def current(self) -> Certificates:
        """The newest usable ones: the same object as before unless the files have changed for others as good."""
        with self._lock:
            if self._clock() - self._looked >= LOOK_SECONDS:
                self._looked = self._clock()
                self._look()
            return self._current

    def _look(self) -> None:
        if (signature := self._signature()) == self._seen:
            return
        # Good or bad: what has been judged once is not judged again before it changes.
        self._seen = signature
        try:
            self._current, self._seen = self._read()
        except StartupError as error:
            metrics.TLS_RELOADS.labels(self._role, "refused").inc()
            log.warning(
                "changed certificates are of no use: the old ones stay",
                extra={"role": self._role, "reason": str(error)},
            )
        else:
            metrics.TLS_RELOADS.labels(self._role, "loaded").inc()
            log.info("certificates reloaded", extra={"role": self._role})

    def _read(self) -> tuple[Certificates, _Signature]:
        for _ in range(_MAX_READS):
            signature = self._signature()
            certificates = Certificates(
                cert=_bytes(self._cert),
                key=_bytes(self._key),
                ca=_bytes(self._ca),
                context=self._checked_context(),
            )
            if self._signature() == signature:
                return certificates, signature
        raise StartupError(f"{self._cert or self._ca} and the files beside it change while they are read")

    def _checked_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self._cert is not None:
            _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), self._cert)
            _load_chain(context, self._cert, self._key)
        if self._ca is not None:
            _load_authorities(context, self._ca)
        return context

    def _signature(self) -> _Signature:
        """Changes whenever a file may have; symbolic links are followed, for those are what Kubernetes swaps."""
        return tuple(_stat(path) for path in (self._cert, self._key, self._ca) if path is not None)


def _bytes(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _stat(path: Path) -> tuple[int, ...]:
    """Of a file that is not there: nothing, which is also a state that others differ from."""
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise StartupError(f"{path} holds no PEM certificate") from None
    except OSError as error:
        raise _unreadable(path, error) from error


def _load_chain(context: ssl.SSLContext, cert: Path, key: Path | None) -> None:
    try:
        # A password would be asked for at the terminal.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise StartupError(f"{key} is not the key of the first certificate in {cert}") from None
        raise StartupError(f"{key} holds no PEM key without a password") from None
    except OSError as error:
        raise _unreadable(key or cert, error) from error


def _unreadable(path: Path, error: OSError) -> StartupError:
    return StartupError(f"cannot read {path}: {error.strerror}")

"""Credentials of servers and channels out of files that may change."""

import ssl

import grpc

from onlinerlhf.core.errors import StartupError
from onlinerlhf.runtime.certificates import CertificateFiles, Certificates


def server_credentials(files: CertificateFiles, *, need_client_certificate: bool) -> grpc.ServerCredentials:
    """For a gRPC server: each new connection gets the newest certificates."""
    given = files.current()

    def newest() -> grpc.ServerCertificateConfiguration | None:
        """Asked by gRPC at each handshake, in a thread of its own. None: as before."""
        nonlocal given
        if (found := files.current()) is given:
            return None
        given = found
        return _server_configuration(found)

    return grpc.dynamic_ssl_server_credentials(
        _server_configuration(given),
        newest,  # type: ignore[arg-type] # the stub knows nothing of None
        require_client_authentication=need_client_certificate,
    )


def channel_credentials(certificates: Certificates) -> grpc.ChannelCredentials:
    """For a gRPC channel. Its connections keep them for as long as the channel lives."""
    return grpc.ssl_channel_credentials(certificates.ca, certificates.key, certificates.cert)


def server_context(files: CertificateFiles, *, need_client_certificate: bool) -> ssl.SSLContext:
    """For servers of the standard library's kind: each new connection gets the newest certificates.

    Contexts are exchanged, never changed: one that refused the second half of a new pair would have lost the old one.
    """

    def newest(connection: ssl.SSLObject, _name: str | None, _base: ssl.SSLContext) -> None:
        """Asked by OpenSSL after the client's first message, whether or not that names a server."""
        connection.context = files.current().context

    base = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if need_client_certificate:
        base.verify_mode = ssl.CERT_REQUIRED
        # A resumed session would spare its client the newest authorities' judgement.
        base.options |= ssl.OP_NO_TICKET
        base.num_tickets = 0
    base.sni_callback = newest
    return base


def _server_configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    if certificates.key is None or certificates.cert is None:
        raise StartupError("a server needs a certificate and its key")
    pair = (certificates.key, certificates.cert)
    return grpc.ssl_server_certificate_configuration([pair], certificates.ca)

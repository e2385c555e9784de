"""Who may talk to whom: TLS with certificates on both sides, or with a token that is good for one migration.

With a token neither side needs a certificate. TLS runs with an anonymous key exchange then (RFC 8422, ECDH_anon), which
by itself would let somebody stand in the middle; so each side shows that it knows the token by an HMAC over what is
unique to this very connection (RFC 5929, tls-unique). Who stands in the middle has two connections, and so two
different values, and learns nothing that would be good for the other one.
"""

import hashlib
import hmac
import ipaddress
import secrets
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emuvisor.errors import MigrationError, UsageError
from emuvisor.migration.channel import LineLost

__all__ = ["Certificates", "Insecure", "Security", "Token", "make_token", "proof", "refuse_far_away"]

_ANONYMOUS = "AECDH-AES256-SHA:@SECLEVEL=0"
"""Level 0 is OpenSSL's word for all ciphers without certificates; the token is what vouches for the other side."""
TOKEN_BYTES = 32
MIN_TOKEN = 20
"""Characters."""


def make_token() -> str:
    """A token for one migration: 256 random bits as text."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def proof(key: bytes, role: str, nonce: bytes, binding: bytes) -> bytes:
    """What shows that `role` ("source" or "target") knows `key`, on the connection of `nonce` and `binding`."""
    parts = b"".join(len(part).to_bytes(4, "big") + part for part in (role.encode(), nonce, binding))
    return hmac.new(key, b"emuvisor migration" + parts, hashlib.sha256).digest()


@dataclass(frozen=True)
class Token:
    """Both sides have been given the same `text`. Raises UsageError for one that could be guessed."""

    text: str

    def __post_init__(self) -> None:
        if len(self.text) < MIN_TOKEN:
            raise UsageError(f"migration: a token has at least {MIN_TOKEN} characters, not {len(self.text)}")

    def key(self) -> bytes:
        """What proofs are made with."""
        return hashlib.sha256(b"emuvisor token" + self.text.encode()).digest()

    def context(self, server: bool) -> ssl.SSLContext:
        """TLS without certificates. Raises MigrationError where the system's OpenSSL does not have that."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.set_ciphers(_ANONYMOUS)
        except ssl.SSLError:
            raise MigrationError(
                "migration: this system's OpenSSL has no TLS without certificates; use certificates"
            ) from None
        return context


@dataclass(frozen=True)
class Certificates:
    """Each side has a certificate and its key (PEM), and believes who signed the other's. `name` is the host's name
    that the target's certificate must have; None takes any that `ca` signed. Raises UsageError naming the files."""

    certificate: Path
    key_file: Path
    ca: Path
    name: str | None = None

    def __post_init__(self) -> None:
        self.context(True)

    def key(self) -> None:
        """There is no token."""

    def context(self, server: bool) -> ssl.SSLContext:
        """TLS 1.3 that knows both sides."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = not server and self.name is not None
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.certificate, self.key_file)
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            files = f"{self.certificate}, {self.key_file}, {self.ca}"
            raise UsageError(f"migration: cannot use the certificates {files}: {error}") from None
        return context


@dataclass(frozen=True)
class Insecure:
    """No TLS: for a Unix socket, or an address of this very machine."""

    def key(self) -> None:
        """There is no token."""


Security = Token | Certificates | Insecure


def secure(sock: socket.socket, security: Security, *, server: bool) -> socket.socket:
    """`sock` with TLS around it, as `security` says. Raises MigrationError when the other side is not who it must be,
    LineLost, UsageError for a plain line that leaves this machine."""
    if isinstance(security, Insecure):
        refuse_far_away(sock, sock.getpeername())
        return sock
    context = security.context(server)
    name = None if server or not isinstance(security, Certificates) else security.name
    try:
        return context.wrap_socket(sock, server_side=server, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raise MigrationError(f"migration: the other side's certificate: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise MigrationError(f"migration: no TLS with the other side: {error.reason or error}") from None
    except OSError as error:
        raise LineLost(str(error)) from None


def refuse_far_away(sock: socket.socket, address: Any) -> None:
    """Raises UsageError unless `address` of `sock`, its own or its peer's, is on this machine."""
    if sock.family != socket.AF_UNIX and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        raise UsageError("migration: without TLS it may not leave this machine")

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
from emuvisor.migration.channel import LineLost, alert_text
from emuvisor.migration.frames import message_frame

__all__ = ["Certificates", "Insecure", "Security", "Token", "make_token", "proof", "refuse_far_away"]

_ANONYMOUS = "AECDH-AES256-SHA:@SECLEVEL=0"
"""Level 0 is OpenSSL's word for all ciphers without certificates; the token is what vouches for the other side."""
TOKEN_BYTES = 32
MIN_TOKEN = 20
"""Characters."""
_TLS_HANDSHAKE = b"\x16"
"""The first byte of what a client sends that speaks TLS (RFC 8446, 5.1); no frame of ours begins with it."""
_OTHER_VERSION = ("UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION")
"""OpenSSL's reasons when one side has a token, which is TLS 1.2, and the other one certificates, which are TLS 1.3."""


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
    or has been given something else; LineLost, UsageError for a plain line that leaves this machine."""
    try:
        if not isinstance(security, Insecure):
            return _tls(sock, security, server)
        refuse_far_away(sock, sock.getpeername())
        if not server:  # or one that waits for TLS would wait for it, and both say nothing
            sock.sendall(message_frame({"type": "plain"}))
        return sock
    except OSError as error:
        raise LineLost(str(error)) from None


def _tls(sock: socket.socket, security: Token | Certificates, server: bool) -> ssl.SSLSocket:
    if server:
        _refuse_plain(sock, security)
    name = None if server or not isinstance(security, Certificates) else security.name
    try:
        return security.context(server).wrap_socket(sock, server_side=server, server_hostname=name)
    except ssl.SSLCertVerificationError as error:
        raise MigrationError(f"migration: the other side's certificate: {error.verify_message}") from None
    except ssl.SSLError as error:
        raise MigrationError(_no_tls(error, security, server)) from None


def _refuse_plain(sock: socket.socket, security: Token | Certificates) -> None:
    """Tell one who connects without TLS that it is wanted. Raises MigrationError then."""
    first = sock.recv(1, socket.MSG_PEEK)
    if first in (_TLS_HANDSHAKE, b""):
        return
    reason = f"migration: the side that listens wants {_what(security)}, and the side that connects has none"
    sock.recv(1 << 12)  # a line that is closed with something unread may lose what was sent last
    sock.sendall(message_frame({"type": "refused", "reason": reason}))
    raise MigrationError(reason)


def _what(security: Token | Certificates) -> str:
    return "a token" if isinstance(security, Token) else "a certificate"


def _no_tls(error: ssl.SSLError, security: Token | Certificates, server: bool) -> str:
    """Why there is no TLS with the other side, for people."""
    other = "side that connects" if server else "side that listens"
    reason = error.reason or str(error)
    if reason in _OTHER_VERSION:
        theirs = "a certificate" if isinstance(security, Token) else "a token"
        return f"migration: this side was given {_what(security)}, and the {other} {theirs}"
    if not server and reason == "WRONG_VERSION_NUMBER":
        return f"migration: this side was given {_what(security)}, and the {other} speaks no TLS"
    return alert_text(reason) or f"migration: no TLS with the other side: {reason}"


def refuse_far_away(sock: socket.socket, address: Any) -> None:
    """Raises UsageError unless `address` of `sock`, its own or its peer's, is on this machine."""
    if sock.family != socket.AF_UNIX and not ipaddress.ip_address(address[0].partition("%")[0]).is_loopback:
        raise UsageError("migration: without a token or certificates it may not leave this machine")

"""The secret that who comes over TCP has to know."""

import hmac
import os
import re
import stat
from pathlib import Path

from emuvisor.errors import UsageError

__all__ = ["authorized", "read_token"]

LEAST = 16
"""Characters, which is what `openssl rand -hex 8` gives."""
MOST = 512
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]{%d,%d}=*" % (LEAST, MOST))
"""What a Bearer token may be made of (RFC 6750, section 2.1)."""


def read_token(path: Path) -> str:
    """The token in the file `path`, which nobody but its owner may read.

    Raises UsageError for a file that cannot be read, that others can read, or that has no token in it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(MOST * 2).strip()
    except OSError as error:
        raise UsageError(f"{path}: the token cannot be read: {error.strerror}") from None
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError(
            f"{path}: others can read the token (mode {stat.S_IMODE(mode):04o}); chmod 600 {path}"
        )
    if _TOKEN.fullmatch(text) is None:
        raise UsageError(
            f"{path}: no token in it; one has {LEAST} to {MOST} letters, digits and characters of '._~+/-', such as "
            "'openssl rand -hex 32' gives"
        )
    return text.decode()


def authorized(header: bytes | None, token: str) -> bool:
    """Whether the value of an Authorization header has `token`. It takes as long whichever character is wrong."""
    scheme, _, given = (header or b"").partition(b" ")
    right = hmac.compare_digest(given.strip(b" "), token.encode())
    return right and scheme.lower() == b"bearer"

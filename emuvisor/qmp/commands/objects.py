"""What a migration shows to the other side: the part "QOM" as far as it is about credentials.

They are made as for QEMU, by `object-add`, and the parameter "tls-creds" of the next migration names one:
"tls-creds-x509", a folder with the files that QEMU's documentation of TLS names, or a "secret", which is a token here.
"""

import base64
import binascii
from pathlib import Path
from typing import Any

from emuvisor.qmp.errors import QmpError
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.registry import Registry

__all__ = ["REGISTRY"]

REGISTRY = Registry()

MAX_OBJECTS = 100
MAX_SECRET = 64 * 1024
"""Bytes."""
_FILES = {"certificate": "client-cert.pem", "key": "client-key.pem", "ca": "ca-cert.pem"}
"""By what `Manager.migrate` calls them."""


@REGISTRY.command("object-add")
def object_add(
    monitor: Monitor,
    *,
    qom_type: str,
    id: str,
    data: str | None = None,
    file: str | None = None,
    format: str = "raw",
    dir: str | None = None,
    endpoint: str = "client",
) -> dict[str, Any]:
    """Make credentials: a "secret" of `data` or of what is in `file`, or "tls-creds-x509" of the folder `dir`."""
    if id in monitor.credentials:
        raise QmpError(f"attempt to add duplicate property '{id}' to object (type 'container')")
    if len(monitor.credentials) >= MAX_OBJECTS:
        raise QmpError(f"There are {MAX_OBJECTS} objects, which is the limit")
    if qom_type == "secret":
        made = {"token": _secret(data, file, format)}
    elif qom_type == "tls-creds-x509":
        made = _certificates(dir, endpoint)
    else:
        raise QmpError(f"Parameter 'qom-type' does not accept value '{qom_type}'")
    monitor.credentials[id] = made
    return {}


def _secret(data: str | None, file: str | None, form: str) -> str:
    if (data is None) == (file is None):
        raise QmpError("Either 'data' or 'file' must be provided, and not both")
    if file is not None:
        try:
            with Path(file).open("rb") as opened:
                content = opened.read(MAX_SECRET + 1)
        except (OSError, ValueError) as error:
            raise QmpError(f"Unable to read {file}: {error}") from None
    else:
        content = (data or "").encode(errors="replace")
    if len(content) > MAX_SECRET:
        raise QmpError(f"A secret of more than {MAX_SECRET} bytes")
    try:
        if form == "base64":
            content = base64.b64decode(content.strip(), validate=True)
        elif form != "raw":
            raise QmpError(f"Parameter 'format' does not accept value '{form}'")
        return content.decode().rstrip("\r\n")
    except (binascii.Error, UnicodeDecodeError):
        raise QmpError("The secret is no text") from None


def _certificates(folder: str | None, endpoint: str) -> dict[str, str]:
    if folder is None:
        raise QmpError("Parameter 'dir' is missing")
    if endpoint != "client":
        raise QmpError(f"Parameter 'endpoint' does not accept value '{endpoint}'")
    return {key: str(Path(folder).absolute() / name) for key, name in _FILES.items()}


@REGISTRY.command("object-del")
def object_del(monitor: Monitor, *, id: str) -> dict[str, Any]:
    """Forget credentials."""
    if monitor.credentials.pop(id, None) is None:
        raise QmpError(f"object '{id}' not found")
    return {}

"""Names as a guest sends them: checked before the host's file system sees one.

A name is one component of a path. Without "/", "." and ".." it cannot leave the directory that it is opened in.
"""

import errno

from emuvisor.devices.virtio.fs.refusal import refusal

__all__ = ["NAME_MAX", "TARGET_MAX", "link_target", "single_name", "two_names"]

NAME_MAX = 255
"""The longest name in bytes, as on every file system of Linux."""
TARGET_MAX = 4095
"""The longest text of a symbolic link in bytes: PATH_MAX without the NUL."""


def single_name(data: bytes) -> bytes:
    """The one name that `data` begins with, up to its NUL.

    Raises OSError: EINVAL for none, for "", "." and "..", and for a "/" in it; ENAMETOOLONG for more than NAME_MAX
    bytes.
    """
    name, _rest = _split(data)
    return _checked(name)


def two_names(data: bytes) -> tuple[bytes, bytes]:
    """The two names that `data` begins with. Raises OSError as `single_name`."""
    first, rest = _split(data)
    second, _rest = _split(rest)
    return _checked(first), _checked(second)


def link_target(data: bytes) -> tuple[bytes, bytes]:
    """SYMLINK's name and the text of the link, which is any text: nobody follows it on the host.

    Raises OSError: as `single_name`; ENOENT for an empty text, ENAMETOOLONG for more than TARGET_MAX bytes.
    """
    name, rest = _split(data)
    target, _rest = _split(rest)
    if not target:
        raise refusal(errno.ENOENT)
    if len(target) > TARGET_MAX:
        raise refusal(errno.ENAMETOOLONG)
    return _checked(name), target


def _split(data: bytes) -> tuple[bytes, bytes]:
    text, nul, rest = data.partition(b"\0")
    if not nul:
        raise refusal(errno.EINVAL)
    return text, rest


def _checked(name: bytes) -> bytes:
    if name in (b"", b".", b"..") or b"/" in name:
        raise refusal(errno.EINVAL)
    if len(name) > NAME_MAX:
        raise refusal(errno.ENAMETOOLONG)
    return name

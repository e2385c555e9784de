"""What guests, snapshots and disks of a store may be called."""

import re

from emuvisor.errors import UsageError

__all__ = ["check_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def check_name(kind: str, name: str) -> str:
    """`name`, which is one that a file can have anywhere and that cannot leave its folder.

    Raises UsageError, in which `kind` is what was to be called so.
    """
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} cannot be the name of a {kind}; a name has 1 to 64 letters (a to z), digits, '.', '_' and '-', "
            "and begins with a letter or a digit"
        )
    return name

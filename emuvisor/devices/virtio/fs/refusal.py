"""Refusals: an OSError is what an operation answers the guest with."""

import os

__all__ = ["refusal"]


def refusal(number: int) -> OSError:
    """The OSError that makes the server answer with error `number` (of the errno module)."""
    return OSError(number, os.strerror(number))

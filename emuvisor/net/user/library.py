"""libslirp itself: its structures and functions, as its header libslirp.h declares them.

The library is loaded by its soname, which stands for its binary interface. The structures are those of configuration
version 1, which every libslirp of that soname takes.
"""

import ctypes
import os
import re
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_int,
    c_int64,
    c_size_t,
    c_ssize_t,
    c_uint8,
    c_uint32,
    c_void_p,
)
from functools import cache
from typing import Final

from emuvisor.errors import HostError

__all__ = [
    "CONFIG_VERSION",
    "HOSTFWD_V6ONLY",
    "POLL_ERR",
    "POLL_HUP",
    "POLL_IN",
    "POLL_OUT",
    "POLL_PRI",
    "AddPoll",
    "Callbacks",
    "Config",
    "GetEvents",
    "In6Addr",
    "InAddr",
    "load",
]

LIBRARY_VARIABLE = "EMUVISOR_LIBSLIRP"
SONAME = "libslirp.so.0"
PACKAGE = "libslirp0"
"""What Debian and Ubuntu call it; Fedora's is libslirp."""
OLDEST: Final = (4, 5)
"""slirp_add_hostxfwd, which forwards IPv6 too, came with 4.5."""

CONFIG_VERSION = 1
POLL_IN, POLL_OUT, POLL_PRI, POLL_ERR, POLL_HUP = 1, 2, 4, 8, 16
HOSTFWD_V6ONLY = 2


class InAddr(Structure):
    """struct in_addr; made from packed bytes."""

    _fields_ = (("s_addr", c_uint32),)


class In6Addr(Structure):
    """struct in6_addr; made from packed bytes."""

    _fields_ = (("s6_addr32", c_uint32 * 4),)


class Config(Structure):
    """struct SlirpConfig, version 1."""

    _fields_ = (
        ("version", c_uint32),
        ("restricted", c_int),
        ("in_enabled", c_bool),
        ("vnetwork", InAddr),
        ("vnetmask", InAddr),
        ("vhost", InAddr),
        ("in6_enabled", c_bool),
        ("vprefix_addr6", In6Addr),
        ("vprefix_len", c_uint8),
        ("vhost6", In6Addr),
        ("vhostname", c_char_p),
        ("tftp_server_name", c_char_p),
        ("tftp_path", c_char_p),
        ("bootfile", c_char_p),
        ("vdhcp_start", InAddr),
        ("vnameserver", InAddr),
        ("vnameserver6", In6Addr),
        ("vdnssearch", POINTER(c_char_p)),
        ("vdomainname", c_char_p),
        ("if_mtu", c_size_t),
        ("if_mru", c_size_t),
        ("disable_host_loopback", c_bool),
        ("enable_emu", c_bool),
    )


TimerCallback = CFUNCTYPE(None, c_void_p)
AddPoll = CFUNCTYPE(c_int, c_int, c_int, c_void_p)
GetEvents = CFUNCTYPE(c_int, c_int, c_void_p)


class Callbacks(Structure):
    """struct SlirpCb, version 1. `opaque` is not used: each instance has functions of its own."""

    _fields_ = (
        ("send_packet", CFUNCTYPE(c_ssize_t, c_void_p, c_size_t, c_void_p)),
        ("guest_error", CFUNCTYPE(None, c_char_p, c_void_p)),
        ("clock_get_ns", CFUNCTYPE(c_int64, c_void_p)),
        ("timer_new", CFUNCTYPE(c_void_p, TimerCallback, c_void_p, c_void_p)),
        ("timer_free", CFUNCTYPE(None, c_void_p, c_void_p)),
        ("timer_mod", CFUNCTYPE(None, c_void_p, c_int64, c_void_p)),
        ("register_poll_fd", CFUNCTYPE(None, c_int, c_void_p)),
        ("unregister_poll_fd", CFUNCTYPE(None, c_int, c_void_p)),
        ("notify", CFUNCTYPE(None, c_void_p)),
    )


@cache
def load() -> ctypes.PyDLL:
    """The library: the file that $EMUVISOR_LIBSLIRP names, else the system's.

    It is a PyDLL: calls keep the GIL. None of them blocks, each is short, and letting go would cost a wait behind every
    running Python thread for each frame. It also keeps libslirp's few global variables to one thread at a time.

    Raises HostError if it is missing or older than 4.5.
    """
    name = os.environ.get(LIBRARY_VARIABLE) or SONAME
    try:
        library = ctypes.PyDLL(name, use_errno=True)
        library.slirp_version_string.restype = c_char_p
        version = library.slirp_version_string().decode(errors="replace")
    except (OSError, AttributeError) as error:
        raise HostError(
            f"uplink 'user' needs libslirp, and {name} cannot be used ({error}): install Debian's package {PACKAGE}, "
            f"or name the library's file in ${LIBRARY_VARIABLE}"
        ) from None
    check_version(version)
    _declare(library)
    return library


def check_version(version: str) -> None:
    """Raise HostError for a libslirp that is too old for us, or whose binary interface is not known."""
    match = re.match(r"([0-9]+)\.([0-9]+)", version)
    found = (int(match[1]), int(match[2])) if match else (0, 0)
    if not OLDEST <= found < (OLDEST[0] + 1, 0):
        raise HostError(
            f"uplink 'user' needs libslirp {OLDEST[0]}.{OLDEST[1]} or a newer {OLDEST[0]}.x; this one is {version}"
        )


def _declare(library: ctypes.PyDLL) -> None:
    """Say what the functions take and give."""
    library.slirp_new.argtypes = (POINTER(Config), POINTER(Callbacks), c_void_p)
    library.slirp_new.restype = c_void_p
    library.slirp_cleanup.argtypes = (c_void_p,)
    library.slirp_cleanup.restype = None
    library.slirp_input.argtypes = (c_void_p, c_char_p, c_int)
    library.slirp_input.restype = None
    library.slirp_pollfds_fill.argtypes = (c_void_p, POINTER(c_uint32), AddPoll, c_void_p)
    library.slirp_pollfds_fill.restype = None
    library.slirp_pollfds_poll.argtypes = (c_void_p, c_int, GetEvents, c_void_p)
    library.slirp_pollfds_poll.restype = None
    library.slirp_add_hostxfwd.argtypes = (c_void_p, c_char_p, c_uint32, c_char_p, c_uint32, c_int)
    library.slirp_add_hostxfwd.restype = c_int
    library.slirp_remove_hostxfwd.argtypes = (c_void_p, c_char_p, c_uint32, c_int)
    library.slirp_remove_hostxfwd.restype = c_int

"""An encoder for AML, the bytecode of ACPI tables (ACPI specification 6.4, chapter 20).

Each function returns the bytes of one term, and takes terms as its arguments, so that a table reads much as its ASL:

    device("COM1", name("_HID", eisa_id("PNP0501")), name("_UID", integer(1)))

Wrong arguments (a name of five letters, a number beyond 64 bits) raise UsageError.
"""

import re
from collections.abc import Iterable

from emuvisor.errors import UsageError

__all__ = [
    "ARG0",
    "Field",
    "RegionSpace",
    "bit_and",
    "bit_or",
    "buffer",
    "create_dword_field",
    "device",
    "eisa_id",
    "field",
    "if_",
    "integer",
    "method",
    "name",
    "name_string",
    "notify",
    "operation_region",
    "package",
    "return_",
    "scope",
    "store",
    "string",
]

# Opcodes, by their names in table 20.3.
ZERO_OP = b"\x00"
ONE_OP = b"\x01"
NAME_OP = b"\x08"
BYTE_PREFIX = b"\x0a"
WORD_PREFIX = b"\x0b"
DWORD_PREFIX = b"\x0c"
STRING_PREFIX = b"\x0d"
QWORD_PREFIX = b"\x0e"
SCOPE_OP = b"\x10"
BUFFER_OP = b"\x11"
PACKAGE_OP = b"\x12"
METHOD_OP = b"\x14"
DUAL_NAME_PREFIX = b"\x2e"
MULTI_NAME_PREFIX = b"\x2f"
OP_REGION_OP = b"\x5b\x80"
FIELD_OP = b"\x5b\x81"
DEVICE_OP = b"\x5b\x82"
ARG0 = b"\x68"
STORE_OP = b"\x70"
AND_OP = b"\x7b"
OR_OP = b"\x7d"
NOTIFY_OP = b"\x86"
CREATE_DWORD_FIELD_OP = b"\x8a"
IF_OP = b"\xa0"
RETURN_OP = b"\xa4"

NULL_NAME = b"\x00"
NAME_SEGMENT_LENGTH = 4
MAX_SEGMENTS = 255
MAX_PACKAGE_ELEMENTS = 255
MAX_ARGUMENTS = 7
METHOD_SERIALIZED = 1 << 3
RESERVED_FIELD = b"\x00"

FIELD_BYTE_ACCESS = 1
"""AccessType ByteAcc, LockRule NoLock, UpdateRule Preserve."""

# Package lengths that fit into one, two, three and four bytes, the bytes themselves included.
PKG_LENGTH_1 = 1 << 6
PKG_LENGTH_LIMITS = (1 << 12, 1 << 20, 1 << 28)

_SEGMENT = re.compile(r"[A-Z_][A-Z0-9_]{0,3}")
_PATH = re.compile(r"(\\|\^*)(.*)")
_EISA_ID = re.compile(r"([A-Z]{3})([0-9A-F]{4})")

Field = tuple[str | None, int]
"""A field's name (None: bits that have no name) and its width in bits."""


class RegionSpace:
    """Address spaces of operation regions."""

    SYSTEM_MEMORY = 0
    SYSTEM_IO = 1
    PCI_CONFIG = 2


def _package_length(body: bytes) -> bytes:
    """`body` behind its PkgLength."""
    if len(body) + 1 < PKG_LENGTH_1:
        return bytes([len(body) + 1]) + body
    for extra, limit in enumerate(PKG_LENGTH_LIMITS, 1):
        length = len(body) + 1 + extra
        if length < limit:
            return bytes([extra << 6 | length & 15]) + (length >> 4).to_bytes(extra, "little") + body
    raise UsageError(f"AML: a package of {len(body)} bytes; PkgLength ends at {PKG_LENGTH_LIMITS[-1] - 1}")


def _segment(text: str) -> bytes:
    if _SEGMENT.fullmatch(text) is None:
        raise UsageError(
            f"AML: {text!r} is not a name segment: 1 to 4 of A-Z, 0-9 and '_', not beginning with a digit"
        )
    return text.ljust(NAME_SEGMENT_LENGTH, "_").encode()


def name_string(path: str) -> bytes:
    r"""A name or a path, such as "_CRS", "^LNKA" or "\_SB.PCI0"; a reference to the object of that name."""
    match = _PATH.fullmatch(path)
    assert match is not None  # the pattern's second group takes anything
    prefix, rest = match[1].encode(), match[2]
    segments = [_segment(part) for part in rest.split(".")] if rest else []
    if not segments:
        return prefix + NULL_NAME
    if len(segments) == 1:
        return prefix + segments[0]
    if len(segments) == 2:
        return prefix + DUAL_NAME_PREFIX + b"".join(segments)
    if len(segments) > MAX_SEGMENTS:
        raise UsageError(f"AML: a path of {len(segments)} segments; the limit is {MAX_SEGMENTS}")
    return prefix + MULTI_NAME_PREFIX + bytes([len(segments)]) + b"".join(segments)


def integer(value: int) -> bytes:
    """A constant from 0 to 2**64 - 1, in its shortest form."""
    if not 0 <= value < 1 << 64:
        raise UsageError(f"AML: {value} is not an integer of 64 bits")
    if value == 0:
        return ZERO_OP
    if value == 1:
        return ONE_OP
    for size, prefix in ((1, BYTE_PREFIX), (2, WORD_PREFIX), (4, DWORD_PREFIX)):
        if value < 1 << 8 * size:
            return prefix + value.to_bytes(size, "little")
    return QWORD_PREFIX + value.to_bytes(8, "little")


def string(text: str) -> bytes:
    """An ASCII string without NUL characters."""
    if not text.isascii() or "\0" in text:
        raise UsageError(f"AML: {text!r} is not ASCII text without NUL")
    return STRING_PREFIX + text.encode() + b"\0"


def eisa_id(text: str) -> bytes:
    """A compressed EISA ID, such as "PNP0501": three letters of five bits, four hexadecimal digits, big-endian."""
    match = _EISA_ID.fullmatch(text)
    if match is None:
        raise UsageError(
            f"AML: {text!r} is not an EISA ID: three capital letters and four hexadecimal digits"
        )
    first, second, third = (ord(letter) - ord("@") for letter in match[1])
    vendor = first << 10 | second << 5 | third
    return DWORD_PREFIX + vendor.to_bytes(2, "big") + bytes.fromhex(match[2])


def buffer(data: bytes) -> bytes:
    """A Buffer that holds `data`."""
    return BUFFER_OP + _package_length(integer(len(data)) + data)


def package(*elements: bytes) -> bytes:
    """A Package of at most 255 terms."""
    if len(elements) > MAX_PACKAGE_ELEMENTS:
        raise UsageError(f"AML: a package of {len(elements)} elements; the limit is {MAX_PACKAGE_ELEMENTS}")
    return PACKAGE_OP + _package_length(bytes([len(elements)]) + b"".join(elements))


def name(path: str, value: bytes) -> bytes:
    """Name (path, value)."""
    return NAME_OP + name_string(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    """Scope (path) { terms }."""
    return SCOPE_OP + _package_length(name_string(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """Device (path) { terms }."""
    return DEVICE_OP + _package_length(name_string(path) + b"".join(terms))


def method(path: str, *terms: bytes, arguments: int = 0, serialized: bool = False) -> bytes:
    """Method (path, arguments) { terms }; one that creates named objects has to be `serialized`."""
    if not 0 <= arguments <= MAX_ARGUMENTS:
        raise UsageError(f"AML: method {path} with {arguments} arguments; the limit is {MAX_ARGUMENTS}")
    flags = arguments | (METHOD_SERIALIZED if serialized else 0)
    return METHOD_OP + _package_length(name_string(path) + bytes([flags]) + b"".join(terms))


def operation_region(path: str, space: int, offset: int, length: int) -> bytes:
    """OperationRegion (path, space, offset, length)."""
    return OP_REGION_OP + name_string(path) + bytes([space]) + integer(offset) + integer(length)


def field(region: str, fields: Iterable[Field]) -> bytes:
    """Field (region, ByteAcc, NoLock, Preserve) { fields }."""
    body = name_string(region) + bytes([FIELD_BYTE_ACCESS])
    for label, bits in fields:
        body += (RESERVED_FIELD if label is None else _segment(label)) + _bit_length(bits)
    return FIELD_OP + _package_length(body)


def _bit_length(bits: int) -> bytes:
    """A field's width, encoded like a PkgLength that does not count itself."""
    if bits < PKG_LENGTH_1:
        return bytes([bits])
    for extra, limit in enumerate(PKG_LENGTH_LIMITS, 1):
        if bits < limit:
            return bytes([extra << 6 | bits & 15]) + (bits >> 4).to_bytes(extra, "little")
    raise UsageError(f"AML: a field of {bits} bits; the limit is {PKG_LENGTH_LIMITS[-1] - 1}")


def create_dword_field(source: bytes, index: int, label: str) -> bytes:
    """CreateDWordField (source, index, label): a name for four bytes of a buffer."""
    return CREATE_DWORD_FIELD_OP + source + integer(index) + name_string(label)


def if_(condition: bytes, *terms: bytes) -> bytes:
    """If (condition) { terms }."""
    return IF_OP + _package_length(condition + b"".join(terms))


def return_(value: bytes) -> bytes:
    """Return (value)."""
    return RETURN_OP + value


def store(value: bytes, target: bytes) -> bytes:
    """Store (value, target)."""
    return STORE_OP + value + target


def notify(path: str, value: int) -> bytes:
    """Notify (path, value)."""
    return NOTIFY_OP + name_string(path) + integer(value)


def bit_and(left: bytes, right: bytes, target: bytes = NULL_NAME) -> bytes:
    """And (left, right, target)."""
    return AND_OP + left + right + target


def bit_or(left: bytes, right: bytes, target: bytes = NULL_NAME) -> bytes:
    """Or (left, right, target)."""
    return OR_OP + left + right + target

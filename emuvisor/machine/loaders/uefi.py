"""What of a UEFI firmware image is its variable store (UEFI Platform Initialization specification, volume 3, 3.2.1)."""

import uuid

__all__ = ["variable_store_size"]

SYSTEM_NV_DATA_FV = uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50").bytes_le
"""The file system GUID of a firmware volume for variables."""

# Fields of a firmware volume's header
FILE_SYSTEM_GUID = 16
FV_LENGTH = 32
SIGNATURE = 40
FV_SIGNATURE = b"_FVH"


def variable_store_size(image: bytes | memoryview) -> int:
    """How many bytes at the beginning of `image` are flash for variables; 0 when it begins with something else."""
    guid = bytes(image[FILE_SYSTEM_GUID:FV_LENGTH])
    if guid != SYSTEM_NV_DATA_FV or bytes(image[SIGNATURE : SIGNATURE + len(FV_SIGNATURE)]) != FV_SIGNATURE:
        return 0
    length = int.from_bytes(image[FV_LENGTH:SIGNATURE], "little")
    return length if length < len(image) else 0

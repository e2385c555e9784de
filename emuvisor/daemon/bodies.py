"""What the bodies of requests have in them."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from emuvisor.devices.storage.formats import DiskFormat
from emuvisor.migration.options import Compression, DiskMode, Mode

__all__ = [
    "CloneBody",
    "CreateBody",
    "ExportBody",
    "ImportBody",
    "KeysBody",
    "MigrateBody",
    "MoveDiskBody",
    "ReceiveBody",
    "RenameBody",
    "RestoreBody",
    "SetBody",
    "ShutdownBody",
    "SnapshotBody",
    "StartBody",
    "StoreCheckBody",
    "StoreGcBody",
]

MAX_NAME = 64
MAX_PATH = 4096
MAX_TIMEOUT_S = 24 * 3600
MAX_DISK = 1000
MAX_RATE = 1 << 50

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
FilePath = Annotated[str, Field(min_length=1, max_length=MAX_PATH)]


class _Body(BaseModel):
    """Unknown keys and values of other types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class CreateBody(_Body):
    """A guest's definition, as in TOML (docs/guests.md); relative paths in it start from `folder`."""

    definition: dict[str, Any]
    folder: FilePath | None = None


class SetBody(_Body):
    """Keys of the definition with new values."""

    changes: dict[str, Any]


class StartBody(_Body):
    """How to start."""

    paused: bool = False


class ShutdownBody(_Body):
    """How long the guest has until it is switched off."""

    timeout_s: Annotated[float, Field(ge=0, le=MAX_TIMEOUT_S)] = 60.0


class RenameBody(_Body):
    """The new name."""

    name: Name


class KeysBody(_Body):
    """Keys to press one after the other: "ret", "ctrl-alt-delete"."""

    keys: list[Annotated[str, Field(max_length=MAX_NAME)]] = Field(max_length=1024)


class SnapshotBody(_Body):
    """The snapshot's name, which is made up when it is empty, and a comment."""

    name: Annotated[str, Field(max_length=MAX_NAME)] = ""
    comment: Annotated[str, Field(max_length=4096)] = ""


class RestoreBody(_Body):
    """Whether the guest runs then, or is paused."""

    running: bool = True


class CloneBody(_Body):
    """The clones' names; they come from the guest as it is, or from a snapshot."""

    names: list[Name] = Field(min_length=1, max_length=10_000)
    snapshot: Name | None = None
    same_identity: bool = False
    running: bool = True


class ExportBody(_Body):
    """`file` is a name in the folder of exports, or over the Unix socket an absolute path."""

    file: FilePath
    snapshot: Name | None = None


class ImportBody(_Body):
    """`file` as with an export; the guest's name is that in the file, or `name`."""

    file: FilePath
    name: Name | None = None


class _Security(_Body):
    """Who may take part in a migration: a token that is good for one, or files of certificates."""

    token: Annotated[str, Field(max_length=4096)] | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None
    ca: FilePath | None = None
    peer: Annotated[str, Field(max_length=256)] | None = None

    def options(self) -> dict[str, Any]:
        """What was given, besides the address."""
        return self.model_dump(exclude_unset=True, exclude={"to", "listen"})


class MigrateBody(_Security):
    """Where the guest is to go, and how (docs/migration.md)."""

    to: Annotated[str, Field(min_length=1, max_length=MAX_PATH)]
    mode: Mode = "pre-copy"
    downtime_ms: int = 300
    bandwidth: int | None = None
    compression: Compression = "none"
    throttle: bool = True
    max_rounds: int = 30
    disks: DiskMode = "shared"


class MoveDiskBody(_Body):
    """A disk, by number or name, and the new file that it is to be; at most so many bytes a second."""

    disk: Annotated[int, Field(ge=0, le=MAX_DISK)] | FilePath
    path: FilePath
    format: DiskFormat | None = None
    bytes_per_s: Annotated[int, Field(ge=1, le=MAX_RATE)] | None = None


class ReceiveBody(_Security):
    """Where to listen for a guest that comes, and how long (docs/migration.md)."""

    listen: Annotated[str, Field(min_length=1, max_length=MAX_PATH)]
    timeout_s: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] | None = None


class StoreCheckBody(_Body):
    """Whether what can be repaired is."""

    repair: bool = False


class StoreGcBody(_Body):
    """Whether files are written again of which little can be freed."""

    everything: bool = False

"""Where images live: a folder for each one in the user's cache, with a manifest of what is in it.

<cache>/images/debian -> debian-3f0a...      the image in use; switched atomically
<cache>/images/debian-3f0a.../manifest.json
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emuvisor.errors import HostError, ImageError

__all__ = ["Image", "Recipe", "cache_folder", "find", "install", "list_images", "usable"]

MANIFEST = "manifest.json"
MANIFEST_VERSION = 4


@dataclass(frozen=True, slots=True)
class Image:
    """A guest that is ready to boot, or firmware. `packages` maps each source package's name to its version.

    It boots its `kernel`, or from its `disk` by the firmware named `firmware`; other files lie in `path`.
    """

    name: str
    path: Path
    kernel: Path | None
    initrd: Path | None
    append: str
    packages: Mapping[str, str]
    size: int
    """Bytes of all its files."""
    disk: Path | None = None
    firmware: str | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """What `install` needs: the files by name, which of them boot, and where they came from.

    A file is its content, or the path of a file that `install` moves away from there: one that was built in
    `work_folder`.
    """

    files: Mapping[str, bytes | Path] = field(repr=False)
    packages: Mapping[str, str]
    kernel: str | None = None
    initrd: str | None = None
    append: str = ""
    disk: str | None = None
    firmware: str | None = None


def cache_folder() -> Path:
    """$EMUVISOR_CACHE, else emuvisor/ in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("EMUVISOR_CACHE"):
        return Path(own)
    # The XDG specification ignores a relative path.
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "emuvisor"


def images_folder() -> Path:
    """The folder of all images, whether it exists or not."""
    return cache_folder() / "images"


def find(name: str) -> Image | None:
    """The installed image `name`, or None.

    Raises ImageError if its manifest is damaged or a file of it is missing or has another size.
    """
    folder = images_folder() / name
    manifest = folder / MANIFEST
    try:
        data = json.loads(manifest.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ImageError(f"{manifest}: damaged: {error}; pull the image again") from None
    try:
        return _read_manifest(name, folder, data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"{manifest}: damaged: {error!r}; pull the image again") from None


def usable(name: str) -> Image | None:
    """The installed image `name`; None when it has to be pulled, for one that is damaged or of another version too."""
    try:
        return find(name)
    except ImageError:
        return None


def list_images() -> list[Image]:
    """All installed images by name."""
    folder = images_folder()
    names = sorted(p.name for p in folder.iterdir() if p.is_symlink()) if folder.is_dir() else []
    return [image for name in names if (image := find(name)) is not None]


def install(name: str, recipe: Recipe) -> Image:
    """Put the image into the cache, in place of an older one of its name, in one atomic step.

    Raises HostError if the cache cannot be written.
    """
    try:
        folder = images_folder()
        folder.mkdir(parents=True, exist_ok=True)
        manifest = json.dumps(_manifest(name, recipe), indent=2, sort_keys=True) + "\n"
        target = folder / f"{name}-{hashlib.sha256(manifest.encode()).hexdigest()[:16]}"
        with work_folder() as work:
            built = work / "image"
            built.mkdir()
            for file_name, data in recipe.files.items():
                if isinstance(data, Path):
                    data.replace(built / file_name)
                else:
                    (built / file_name).write_bytes(data)
            (built / MANIFEST).write_text(manifest)
            # A folder of this name holds this very image, unless it was damaged since.
            if target.exists():
                target.rename(work / "replaced")
            built.rename(target)
            link = work / "link"
            link.symlink_to(target.name)
            link.replace(folder / name)
        _remove_others(folder, name, target)
    except OSError as error:
        raise HostError(f"cannot write the image cache {cache_folder()}: {error.strerror or error}") from None
    image = find(name)
    assert image is not None
    return image


@contextmanager
def work_folder() -> Iterator[Path]:
    """A temporary folder in the cache, so that what is built in it can be renamed into place."""
    images_folder().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=".work-", dir=images_folder(), ignore_cleanup_errors=True
    ) as work:
        yield Path(work)


def _remove_others(folder: Path, name: str, keep: Path) -> None:
    for old in folder.glob(f"{name}-*"):
        # "debian-*" matches the image "debian-memtest" as well; only hashed names are folders of `name`.
        if old != keep and not old.is_symlink() and "-" not in old.name.removeprefix(f"{name}-"):
            with suppress(OSError):
                shutil.rmtree(old)


def _manifest(name: str, recipe: Recipe) -> dict[str, Any]:
    return {
        "version": MANIFEST_VERSION,
        "name": name,
        "packages": dict(recipe.packages),
        "kernel": recipe.kernel,
        "initrd": recipe.initrd,
        "append": recipe.append,
        "disk": recipe.disk,
        "firmware": recipe.firmware,
        "files": {file_name: _describe(data) for file_name, data in recipe.files.items()},
    }


def _describe(data: bytes | Path) -> dict[str, Any]:
    if isinstance(data, bytes):
        return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    with data.open("rb") as file:
        return {"size": data.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _read_manifest(name: str, folder: Path, data: dict[str, Any]) -> Image:
    if data["version"] != MANIFEST_VERSION:
        raise ImageError(
            f"{folder / MANIFEST}: version {data['version']!r} is not {MANIFEST_VERSION}; "
            f"pull the image again"
        )
    for file_name, entry in data["files"].items():
        file = folder / file_name
        found = file.stat().st_size if file.is_file() else None
        if found != entry["size"]:
            state = "missing" if found is None else f"{found} bytes long instead of {entry['size']}"
            raise ImageError(f"{file}: {state}; pull the image again")
    return Image(
        name=name,
        path=folder,
        kernel=folder / data["kernel"] if data["kernel"] else None,
        initrd=folder / data["initrd"] if data["initrd"] else None,
        append=data["append"],
        packages=dict(data["packages"]),
        size=sum(entry["size"] for entry in data["files"].values()),
        # Manifests from before there were disk images lack these two.
        disk=folder / data["disk"] if data.get("disk") else None,
        firmware=data.get("firmware"),
    )

"""Packages from the machine's own package sources, fetched and verified by apt; nothing is installed.

A foreign architecture has package lists of its own in a folder of ours, so that neither root nor a change to
the machine (`dpkg --add-architecture`) is needed.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from emuvisor.errors import HostError, ImageError
from emuvisor.images import tools
from emuvisor.images.deb import read_package

__all__ = ["Apt", "Package", "Source"]

DEPENDS_ON_KERNEL = re.compile(r"Depends: (linux-image-\S+)")
DEB_NAME = re.compile(r"(?P<name>[^_]+)_(?P<version>[^_]+)_[^_]+\.deb")
TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Package:
    """A downloaded package."""

    path: Path
    version: str

    def files(self, *prefixes: str) -> dict[str, bytes]:
        """Its regular files whose names start with one of `prefixes`, such as "boot/". Raises ImageError."""
        return read_package(self.path, lambda name: name.startswith(prefixes))

    def file(self, *names: str) -> bytes:
        """The first of the files `names` that it has. Raises ImageError if there is none of them."""
        found = read_package(self.path, lambda name: name in names)
        for name in names:
            if name in found:
                return found[name]
        raise ImageError(f"{self.path.name}: no {names[0]} in it")


@dataclass(frozen=True, slots=True)
class Source:
    """One component of one suite of an archive. The codename of suite "bookworm-updates" may be "bookworm"."""

    uri: str
    suite: str
    codename: str
    component: str


class Apt:
    """apt for the machine's own architecture."""

    def __init__(self, architecture: str = "amd64", options: tuple[str, ...] = ()) -> None:
        self.architecture = architecture
        self._options = options

    @classmethod
    def foreign(cls, architecture: str, folder: Path) -> "Apt":
        """apt for another architecture, whose package lists are fetched into the new folder `folder`.

        Raises HostError.
        """
        lists = folder / "lists"
        for part in (lists / "partial", folder / "archives" / "partial"):
            part.mkdir(parents=True)
        status = folder / "status"
        status.touch()  # nothing is installed
        settings = (
            f"APT::Architecture={architecture}",
            f"APT::Architectures={architecture}",
            f"Dir::State::Lists={lists}",
            f"Dir::State::Status={status}",
            f"Dir::Cache={folder}",
        )
        apt = cls(architecture, tuple(part for setting in settings for part in ("-o", setting)))
        try:
            apt._run("apt-get", "update", "--quiet")
        except HostError:
            # One source without this architecture, or a mirror in the middle of its own update, leaves the
            # lists of the other sources, which are enough for most.
            if not any(lists.glob("*_Packages*")):
                raise
        return apt

    def newest_kernel(self, metapackage: str) -> str:
        """The package that `metapackage` stands for, such as "linux-image-6.1.0-9-cloud-amd64".

        Raises HostError.
        """
        match = DEPENDS_ON_KERNEL.search(self._run("apt-cache", "depends", metapackage))
        if match is None:
            raise HostError(
                f"apt-cache knows no kernel for {metapackage}; it needs Debian's package lists for "
                f"{self.architecture} (apt-get update)"
            )
        return match[1]

    def download(self, folder: Path, *packages: str) -> dict[str, Package]:
        """Fetch `packages` into `folder`, by name. Raises HostError."""
        self._run("apt-get", "download", "--quiet", *packages, folder=folder)
        found = {}
        for file in folder.glob("*.deb"):
            match = DEB_NAME.fullmatch(file.name)
            if match is not None:
                # apt writes an epoch's colon as %3a.
                found[match["name"]] = Package(file, match["version"].replace("%3a", ":"))
        for package in packages:
            if package not in found:
                raise HostError(f"apt-get download left no file of {package}")
        return {package: found[package] for package in packages}

    def sources(self, origin: str) -> list["Source"]:
        """The package sources of this machine whose archives say that they are of `origin`, such as "Debian".

        Raises HostError if there is none.
        """
        fields = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(CODENAME)|$(COMPONENT)"
        output = self._run("apt-get", "indextargets", "--format", fields, "Created-By: Packages")
        found = [
            Source(*values)
            for whose, *values in (line.split("|") for line in output.splitlines())
            if whose == origin
        ]
        if not found:
            raise HostError(f"apt knows no package source of {origin} (apt-get update)")
        return found

    def _run(self, program: str, *arguments: str, folder: Path | None = None) -> str:
        return tools.run([program, *self._options, *arguments], folder=folder, timeout_s=TIMEOUT_S)

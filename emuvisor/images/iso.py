"""Makes bootable ISO 9660 images (El Torito, no emulation)."""

from pathlib import Path

from emuvisor.images import tools
from emuvisor.images.ext4 import BUILD_TIME_S

__all__ = ["make"]

VOLUME_DATE = "2025010100000000"


def make(image: Path, *, content: Path, boot_image: str, catalog: str, label: str) -> None:
    """Write the folder `content` to `image`; the BIOS boots `boot_image`, a path in `content`.

    The boot image gets a boot information table, which says where it lies. Raises HostError.
    """
    tools.run(
        [
            *("xorriso", "-as", "mkisofs", "-quiet", "-R", "-V", label, "-o", image),
            *("-b", boot_image, "-c", catalog),
            *("-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"),
            *(f"--modification-date={VOLUME_DATE}", "--set_all_file_dates", VOLUME_DATE),
            content,
        ],
        environment={"SOURCE_DATE_EPOCH": str(BUILD_TIME_S)},
    )

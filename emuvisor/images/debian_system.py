"""A whole minimal Debian on a bootable disk: systemd, apt, python3, GRUB, an ext4 root.

mmdebstrap installs it from the machine's own package sources, as root or in a user namespace; no loop device
and no mount of the host's is needed. Log in on the screen or on the serial port as root, password `emuvisor`.
"""

import os
import re
import shlex
import tarfile
from pathlib import Path

from emuvisor.images import ext4, grub, mbr, tools
from emuvisor.images.apt import Apt, Source
from emuvisor.images.cache import Image, Recipe, install, work_folder
from emuvisor.images.overlay import archive
from emuvisor.images.progress import Progress

__all__ = ["PASSWORD", "pull_system"]

PACKAGES = (
    "linux-image-cloud-amd64",
    "lz4",  # the quickest to unpack initramfs
    "systemd-sysv",
    "udev",
    "dbus",  # logind, which listens to the power button, needs it
    "login",
    "e2fsprogs",
    "python3-minimal",
)
LOCAL_PACKAGE = "hello"
"""Its .deb lies in /root, for apt to install without a network."""

PASSWORD = "emuvisor"
# SHA-512 of PASSWORD with the fewest rounds: logging in shall not take long.
PASSWORD_HASH = (
    "$6$rounds=1000$emuvisor$"
    "SU5/tCNjonOHfnJ2A0r99YGlblbQcg8nl6ujS/V9aSvbehvhNjE3yfupUIsSq2M2P2i9vaJjFGP/dORnGxe3t/"
)

DISK_SIZE = 640 * 1024 * 1024
DISK_SIGNATURE = 0xE0A0B0C3
PARTITION_OFFSET = mbr.PARTITION_START * mbr.SECTOR
BUILD_TIMEOUT_S = 1800

UNITS = "etc/systemd/system"
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "modprobe@configfs.service",
    "modprobe@dm_mod.service",
    "modprobe@drm.service",
    "modprobe@efi_pstore.service",
    "modprobe@fuse.service",
    "modprobe@loop.service",
    "proc-sys-fs-binfmt_misc.automount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-machine-id-commit.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
)
"""Work that a guest of a few minutes' life does not need."""
BLACKLISTED_MODULES = ("kvm", "kvm_amd", "kvm_intel", "powernow_k8", "sg")
"""udev would load them for the CPU and the disk."""

FILES = {
    "boot/grub/grub.cfg": f"""\
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=1
menuentry 'Debian' {{
    linux /vmlinuz root=PARTUUID={DISK_SIGNATURE:08x}-01 ro console=tty0 console=ttyS0
    initrd /initrd.img
}}
""",
    "etc/fstab": f"PARTUUID={DISK_SIGNATURE:08x}-01 / ext4 errors=remount-ro 0 1\n",
    "etc/hostname": "emuvisor\n",
    "etc/hosts": "127.0.0.1 localhost emuvisor\n",
    "etc/machine-id": f"{DISK_SIGNATURE:032x}\n",
    "etc/initramfs-tools/modules": "ata_piix\nsd_mod\nvirtio_blk\nvirtio_pci\n",
    "etc/initramfs-tools/conf.d/emuvisor": "MODULES=list\nCOMPRESS=lz4\n",
    "etc/modprobe.d/emuvisor.conf": "".join(f"blacklist {module}\n" for module in BLACKLISTED_MODULES),
    "etc/systemd/journald.conf.d/volatile.conf": "[Journal]\nStorage=volatile\n",
}
LINKS = {f"{UNITS}/{unit}": "/dev/null" for unit in MASKED_UNITS}
UNNEEDED = ("usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man")
LOGS = ("var/log/*.log", "var/log/apt", "var/cache/ldconfig")
"""What installing leaves behind, different each time."""

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
"""Debian's package debian-archive-keyring."""
AS_ROOT: tuple[str, ...] = () if os.geteuid() == 0 else ("fakeroot",)
"""Runs a command that must be able to give files to any user."""
VERSION = re.compile(r"^Package: (\S+)$.*?^Version: (\S+)$", re.MULTILINE | re.DOTALL)


def pull_system(name: str, progress: Progress) -> Image:
    """Build and install the image: half a minute of a fast machine. Raises HostError and ImageError."""
    tools.require("mmdebstrap", "mke2fs", "grub-mkimage", *AS_ROOT)
    steps = 4
    with work_folder() as work:
        progress(f"downloading {grub.PACKAGE} and {LOCAL_PACKAGE}", 0, steps)
        apt = Apt()
        debs = apt.download(work, grub.PACKAGE, LOCAL_PACKAGE)
        modules = grub.unpack_modules(debs[grub.PACKAGE], work / "modules")
        progress("installing Debian", 1, steps)
        tree = work / "root.tar"
        _debootstrap(work, tree, apt.sources("Debian"), debs[LOCAL_PACKAGE].path)
        progress("making the file system", 2, steps)
        disk = work / "disk.img"
        grub.boot_disk(disk, modules, size=DISK_SIZE, signature=DISK_SIGNATURE)
        _make_root(disk, tree)
        versions = _versions(tree)
        progress("installing", 3, steps)
        image = install(
            name,
            Recipe(
                files={"disk.img": disk},
                disk="disk.img",
                firmware="seabios",
                packages={
                    grub.PACKAGE: debs[grub.PACKAGE].version,
                    **{package: versions[package] for package in PACKAGES},
                },
            ),
        )
    progress("done", steps, steps)
    return image


def _debootstrap(work: Path, tree: Path, sources: list[Source], local_package: Path) -> None:
    """Install Debian into the tar archive `tree`."""
    overlay = work / "overlay.tar"
    overlay.write_bytes(archive(FILES, LINKS, ext4.BUILD_TIME_S))
    removed = " ".join(f'"$1"/{path}' for path in (*(f"{folder}/*" for folder in UNNEEDED), *LOGS))
    tools.run(
        [
            *(
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                "--format=tar",
                f"--include={','.join(PACKAGES)}",
            ),
            *(f"--dpkgopt=path-exclude=/{path}/*" for path in UNNEEDED),
            '--aptopt=Acquire::Languages "none"',
            # It would empty our machine-id, too, and then each boot would be the first one.
            "--skip=cleanup/reproducible",
            f"--setup-hook=tar-in {shlex.quote(str(overlay))} /",
            f"--customize-hook=copy-in {shlex.quote(str(local_package))} /root",
            f"--customize-hook=chroot \"$1\" usermod -p '{PASSWORD_HASH}' root",
            f"--customize-hook=rm -rf {removed}",
            *(sources[0].codename, tree),
            *(f"deb [signed-by={KEYRING}] {s.uri} {s.suite} {s.component}" for s in sources),
        ],
        environment={"SOURCE_DATE_EPOCH": str(ext4.BUILD_TIME_S)},
        timeout_s=BUILD_TIMEOUT_S,
    )


def _make_root(disk: Path, tree: Path) -> None:
    """Write the files of the tar archive `tree` into the partition of `disk`."""
    content = tree.with_name("root")
    content.mkdir()
    make = ext4.command(
        disk, kind="ext4", content=content, offset=PARTITION_OFFSET, size=DISK_SIZE - PARTITION_OFFSET
    )
    unpack = ["tar", "-C", str(content), "--numeric-owner", "-xf", str(tree)]
    # One shell: what fakeroot knows about owners ends with the command that it runs.
    script = f"{shlex.join(unpack)} && {shlex.join(make)}"
    tools.run([*AS_ROOT, "sh", "-c", script], environment=ext4.ENVIRONMENT)


def _versions(tree: Path) -> dict[str, str]:
    """What dpkg says about the packages in the tar archive `tree`."""
    with tarfile.open(tree) as tar:
        status = tar.extractfile("./var/lib/dpkg/status")
        assert status is not None
        return dict(VERSION.findall(status.read().decode()))

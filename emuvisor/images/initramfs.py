"""The root file system of the `debian` images: busybox, drivers and an init that ends in a shell.

It is not compressed: a guest reads memory faster than it unpacks.
"""

from collections.abc import Mapping

from emuvisor.errors import ImageError
from emuvisor.images import modules, poweroff
from emuvisor.images.cpio import CpioWriter

__all__ = ["BOOT_MARKER", "build"]

BOOT_MARKER = "EMUVISOR-BOOT-OK"

TRANSPORT_MODULES = ("virtio_ring", "virtio", "virtio_mmio", "virtio_pci")
VIRTIO_MODULES = {
    0x0001: ("virtio_net",),
    0x0002: ("virtio_blk",),
    0x0003: ("virtio_console",),
    0x0004: ("virtio_rng",),
    0x0005: ("virtio_balloon",),
    0x0009: ("9pnet_virtio", "9p"),
    0x0012: ("virtio_input", "evdev"),
    0x0013: ("vmw_vsock_virtio_transport",),
    0x0018: ("virtio_mem",),
    0x001A: ("virtiofs",),
}
"""By device ID (virtio 1.2, section 5)."""
IDE_MODULES = ("ata_piix", "sd_mod", "sr_mod")
OTHER_MODULES = (
    "crc32c_generic",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_iso8859_1",
    "nls_ascii",
    "isofs",
    "floppy",
)
"""For mount and modprobe. ext4 asks for crc32c by name; the cloud kernel has it built in."""
MODULE_LISTS = {
    "virtio": TRANSPORT_MODULES,
    **{f"virtio-{device:#06x}": names for device, names in VIRTIO_MODULES.items()},
    "ide": IDE_MODULES,
}
"""What is loaded for a kind of device, in this order; what a kernel lacks or has built in is left out."""

OWN_PROGRAMS = frozenset({"init", "linuxrc", "busybox"})
"""Applets that get no link: another program, or busybox itself, has the name or the job."""
CONSOLE_DEVICE = (5, 1)

INIT = f"""\
#!/bin/busybox sh
export PATH=/sbin:/bin HOME=/root TERM=${{TERM:-linux}} PS1='\\w # ' ENV=/etc/shell-functions
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
hostname emuvisor
ifconfig lo up
/sbin/load-drivers
echo {BOOT_MARKER}
cd /root
setsid cttyhack sh
/sbin/poweroff
"""

HOSTS = """\
127.0.0.1 localhost emuvisor
::1 localhost
"""

SHELL_FUNCTIONS = """\
# busybox's own are signals to an init that understands them.
poweroff() { /sbin/poweroff; }
halt() { busybox halt -f; }
reboot() { sync; busybox reboot -f; }
"""

LOAD_DRIVERS = """\
#!/bin/busybox sh
# Load the drivers of what is there: virtio on the PCI bus or announced by ACPI (LNRO0005), and IDE disks.
folder=/lib/modules/$(uname -r)
load() {
    [ -e "$folder/$1.load" ] || return 0
    while read -r module; do
        insmod "$folder/$module" 2>/dev/null  # one of another list may be there already
    done < "$folder/$1.load"
}
virtio= ide=
for device in /sys/bus/pci/devices/*; do
    [ -e "$device/class" ] || continue
    read -r vendor < "$device/vendor"
    read -r class < "$device/class"
    [ "$vendor" = 0x1af4 ] && virtio=yes
    case $class in 0x0101*) ide=yes ;; esac
done
[ -e /sys/bus/acpi/devices/LNRO0005:00 ] && virtio=yes
if [ "$virtio" ]; then
    load virtio
    loaded=
    for device in /sys/bus/virtio/devices/*; do
        [ -e "$device/device" ] || continue
        read -r kind < "$device/device"
        case $loaded in *$kind*) continue ;; esac
        loaded="$loaded $kind"
        load "virtio-$kind"
    done
fi
[ "$ide" ] && load ide
"""

DHCP_SCRIPT = """\
#!/bin/busybox sh
# udhcpc calls it with what has happened; what the server told is in the environment.
case $1 in
deconfig)
    ifconfig "$interface" 0.0.0.0 up
    ;;
bound | renew)
    ifconfig "$interface" "$ip" netmask "$subnet" ${broadcast:+broadcast "$broadcast"} ${mtu:+mtu "$mtu"}
    while route del default dev "$interface" 2>/dev/null; do :; done
    for gateway in $router; do
        route add default gw "$gateway" dev "$interface"
    done
    {
        [ -z "$domain" ] || echo "search $domain"
        for server in $dns; do
            echo "nameserver $server"
        done
    } > /etc/resolv.conf
    ;;
esac
"""
DHCP_SCRIPT_PATH = "etc/udhcpc/default.script"
"""Where Debian's busybox looks for it."""

POWEROFF = """\
#!/bin/busybox sh
# Through the port first: it works without ACPI, too.
sync
/sbin/port-poweroff
busybox poweroff -f
busybox reboot -f
"""


def build(
    busybox: bytes, kernel_release: str, module_files: Mapping[str, bytes], architecture: str = "amd64"
) -> bytes:
    """The initramfs as a cpio archive.

    `module_files` maps paths below /lib/modules/`kernel_release` to file contents; `architecture` is "amd64"
    or "i386". Raises ImageError for a busybox whose applets cannot be found.
    """
    cpio = CpioWriter()
    for path in ("dev", "mnt", "proc", "sys", "root"):
        cpio.directory(path)
    cpio.directory("tmp", 0o1777)
    # The kernel opens it as init's standard input and output before init can mount devtmpfs.
    cpio.character_device("dev/console", *CONSOLE_DEVICE)
    cpio.file("init", INIT.encode(), 0o755)
    cpio.file("etc/hosts", HOSTS.encode())
    cpio.file("etc/shell-functions", SHELL_FUNCTIONS.encode())
    cpio.file(DHCP_SCRIPT_PATH, DHCP_SCRIPT.encode(), 0o755)
    cpio.file("sbin/poweroff", POWEROFF.encode(), 0o755)
    cpio.file("sbin/load-drivers", LOAD_DRIVERS.encode(), 0o755)
    cpio.file("sbin/port-poweroff", poweroff.program(architecture), 0o755)
    cpio.file("bin/busybox", busybox, 0o755)
    for applet in applets(busybox):
        if applet not in OWN_PROGRAMS:
            cpio.symlink(f"bin/{applet}", "busybox")
    # The kernel itself calls it there, for a file system to mount for example.
    cpio.symlink("sbin/modprobe", "../bin/busybox")
    _add_modules(cpio, f"lib/modules/{kernel_release}", module_files)
    return cpio.finish()


def applets(busybox: bytes) -> list[str]:
    """The names in busybox's own table: sorted, separated by NUL, ended by an empty one."""
    start = busybox.find(b"\0[\0[[\0")
    end = busybox.find(b"\0\0", start + 1)
    if start < 0 or end < 0:
        raise ImageError("busybox: no table of applets in it")
    return busybox[start + 1 : end].decode("ascii", "replace").split("\0")


def _add_modules(cpio: CpioWriter, folder: str, files: Mapping[str, bytes]) -> None:
    available: dict[str, bytes] = {}
    paths: dict[str, str] = {}
    for path, data in sorted(files.items()):
        name = modules.module_name(path)
        if name is not None:
            available[name] = modules.unpack_module(path, data)
            paths[name] = path[: path.rindex(".ko")] + ".ko"
    lists = {file: modules.load_order(wanted, available) for file, wanted in MODULE_LISTS.items()}
    others = modules.load_order(OTHER_MODULES, available)
    order = list(dict.fromkeys(name for names in (*lists.values(), others) for name in names))
    for name in order:
        cpio.file(f"{folder}/{paths[name]}", available[name])
    for file, names in lists.items():
        # A device's list is read behind its transport's.
        loaded = lists["virtio"] if file.startswith("virtio-") else []
        lines = [paths[name] + "\n" for name in names if name not in loaded]
        if lines:
            cpio.file(f"{folder}/{file}.load", "".join(lines).encode())
    cpio.file(f"{folder}/modules.dep", modules.modules_dep(order, available, paths).encode())
    cpio.file(f"{folder}/modules.alias", modules.modules_alias(order, available).encode())

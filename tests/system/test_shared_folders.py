"""Folders of the host's in a guest: virtio-fs with Debian's driver.

One guest for each transport, booted once. Every test has a folder of its own, which the guest has at `Share.there`.
"""

import hashlib
import os
import random
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from compatibility import Compatibility
from conftest import pulled
from guests import command, power_off, reach_shell
from virtio_guests import NAMES, TRANSPORTS, check_health, kernel, until_prints

from emuvisor.host import Guest, Host
from emuvisor.machine.config import GuestConfig, ShareConfig
from emuvisor.units import MIB

pytestmark = pytest.mark.system

FILES = 1000
BIG = 64 * MIB
PLACES = (("pc", "split"), ("microvm", "packed"))
SECRET = "nobody in the guest may read this"


@dataclass(frozen=True)
class Share:
    """A folder that host and guest both have."""

    guest: Guest
    here: Path
    there: str
    outside: Path
    """A folder of the host's beside the shared ones, with a file `secret` in it."""

    def run(self, line: str) -> str:
        """What `line` prints in the guest, in the folder."""
        return command(self.guest, f"cd {self.there}; {line} 2>&1; cd /")


@dataclass(frozen=True)
class Rig:
    """A running guest with two shared folders, one of them read-only."""

    guest: Guest
    place: tuple[str, str]
    writable: Path
    readonly: Path
    outside: Path

    def mount(self) -> None:
        command(self.guest, "mkdir -p /tmp/rw /tmp/ro")
        assert (
            command(self.guest, "mount -t virtiofs writable /tmp/rw && mount -t virtiofs only-read /tmp/ro")
            == ""
        )


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    board, ring = request.param
    image = pulled("debian")
    folder = tmp_path_factory.mktemp("shares")
    writable, readonly, outside = folder / "writable", folder / "readonly", folder / "outside"
    for path in (writable, readonly, outside):
        path.mkdir()
    (outside / "secret").write_text(SECRET)
    with Host(512 * MIB, pcpus=1) as host:
        guest = host.create(
            GuestConfig(
                board=board,
                ring=ring,
                memory=256 * MIB,
                kernel=kernel(image),
                shares=(
                    ShareConfig(writable, "writable", readonly=False),
                    ShareConfig(readonly, "only-read"),
                ),
            )
        )
        guest.start()
        reach_shell(guest)
        made = Rig(guest, (board, ring), writable, readonly, outside)
        made.mount()
        yield made
        check_health(guest)
        power_off(guest)
    assert [path.name for path in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == SECRET


@pytest.fixture
def share(rig: Rig, request: pytest.FixtureRequest) -> Share:
    name = request.node.name.replace("[", "-").rstrip("]")
    here = rig.writable / name
    here.mkdir()
    return Share(rig.guest, here, f"/tmp/rw/{name}", rig.outside)


def content(i: int) -> bytes:
    """Of file `i` of a thousand: none, less than a page, and several pages."""
    return (f"file {i}\n" * (i % 7 * 150)).encode()


def checksums(read: Callable[[int], bytes]) -> str:
    """What sha256sum prints for the files 0 to FILES - 1."""
    return "".join(f"{hashlib.sha256(read(i)).hexdigest()}  {i}\n" for i in range(FILES))


def digest(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return f"{hashlib.sha256(data).hexdigest()}  -"


def test_a_thousand_files_of_the_hosts(share: Share) -> None:
    (share.here / "many").mkdir()
    for i in range(FILES):
        (share.here / "many" / str(i)).write_bytes(content(i))
    assert share.run("ls many | wc -l; find many -type f | wc -l") == f"{FILES}\n{FILES}"
    assert share.run("cd many; ls | sort -n | xargs sha256sum | sha256sum") == digest(checksums(content))
    assert share.run("cp -r many copy; tar cf files.tar many; rm -r many; ls -1") == "copy\nfiles.tar"
    for i in range(FILES):
        assert (share.here / "copy" / str(i)).read_bytes() == content(i)
    with tarfile.open(share.here / "files.tar") as tar:
        assert len(tar.getnames()) == FILES + 1
    assert share.run("rm -r copy files.tar; ls") == ""
    assert list(share.here.iterdir()) == []


def test_a_thousand_files_of_the_guests(share: Share) -> None:
    share.run(f'for i in $(seq 0 {FILES - 1}); do echo "the guest\'s $i" > $i; done')
    assert {path.name for path in share.here.iterdir()} == set(map(str, range(FILES)))
    for i in range(FILES):
        assert (share.here / str(i)).read_text() == f"the guest's {i}\n"
    # What the host takes away is gone for the guest as well, which may believe for a second that it is there.
    for i in range(0, FILES, 2):
        (share.here / str(i)).unlink()
    until_prints(share.guest, f"ls {share.there} | wc -l", str(FILES // 2))
    assert share.run("rm *; ls") == ""


def test_a_big_file_both_ways(share: Share) -> None:
    data = random.Random("a big file").randbytes(BIG)
    (share.here / "from-host").write_bytes(data)
    assert share.run("sha256sum < from-host") == digest(data)
    share.run("cp from-host from-guest; sync")
    assert (share.here / "from-guest").read_bytes() == data
    # In the middle, not at whole pages.
    share.run("dd if=from-host of=from-guest bs=1000 skip=77 seek=33333 count=1000 conv=notrunc 2>/dev/null")
    expected = bytearray(data)
    expected[33_333_000:34_333_000] = data[77_000:1_077_000]
    assert (share.here / "from-guest").read_bytes() == expected
    assert share.run("sha256sum < from-guest") == digest(bytes(expected))


def test_programs_run_from_it(share: Share) -> None:
    """The kernel maps them into memory through its page cache."""
    assert share.run("cp /bin/busybox .; ./busybox echo runs; ./busybox seq 3 | ./busybox wc -l") == "runs\n3"
    (share.here / "script").write_text("#!/bin/busybox sh\necho a script with $1\n")
    (share.here / "script").chmod(0o755)
    assert share.run("./script arguments") == "a script with arguments"


def test_changes_of_names_and_metadata(share: Share) -> None:
    assert share.run("echo one > a; mv a b; echo two >> b; cat b") == "one\ntwo"
    assert (share.here / "b").read_text() == "one\ntwo\n"
    assert share.run("echo other > c; mv c b; cat b; ls") == "other\nb"
    assert share.run("mkdir -p d/e/f; mv b d/e; rmdir d/e/f; find | sort") == ".\n./d\n./d/e\n./d/e/b"
    file = share.here / "d" / "e" / "b"
    share.run("truncate -s 3 d/e/b; chmod 640 d/e/b; touch -d '2001-02-03 04:05:06' d/e/b")
    status = file.stat()
    assert (file.read_text(), stat.S_IMODE(status.st_mode), int(status.st_mtime)) == ("oth", 0o640, 981173106)
    os.utime(file, (1_000_000_000, 1_000_000_001))
    until_prints(share.guest, f"stat -c '%X %Y %a %s' {share.there}/d/e/b", "1000000000 1000000001 640 3")
    assert share.run("ln d/e/b hard; ln -s d/e/b soft; stat -c %h hard; readlink soft; cat soft hard") == (
        "2\nd/e/b\nothoth"
    )
    assert (share.here / "hard").samefile(file)
    assert str((share.here / "soft").readlink()) == "d/e/b"
    assert share.run("rm d/e/b; cat hard; cat soft") == "othcat: can't open 'soft': No such file or directory"
    assert share.run("mkfifo pipe; (echo through > pipe &); cat pipe") == "through"
    assert share.run("rmdir d || echo kept") == "rmdir: 'd': Directory not empty\nkept"
    host = os.statvfs(share.here)
    blocks = int(share.run("df -k . | tail -1 | sed 's/^[^ ]* *//; s/ .*//'"))
    assert blocks == host.f_blocks * host.f_frsize // 1024


def test_the_host_changes_an_open_file(share: Share) -> None:
    file = share.here / "log"
    file.write_text("first\n")
    share.run(f"exec 3< {share.there}/log; read -r line <&3; echo $line")
    with file.open("a") as log:
        log.write("second\n")
    until_prints(share.guest, "cat <&3", "second")
    # A new file has its name; the open one is still the old.
    (share.here / "new").write_text("new\n")
    (share.here / "new").rename(file)
    until_prints(share.guest, f"cat {share.there}/log", "new")
    file.unlink()
    until_prints(share.guest, f"cat {share.there}/log 2>&1", "No such file")
    command(share.guest, "exec 3<&-")
    # The guest's file is gone, and lives until it is closed.
    assert share.run("exec 3<> open; rm open; echo kept >&3; ls; exec 3<&-") == ""
    assert list(share.here.iterdir()) == []


LINKS = {
    "absolute": "/etc/passwd",
    "upwards": "../" * 30 + "etc/passwd",
    "folder": "/etc",
    "self": "self",
    "process": "/proc/self/root/etc/passwd",
}


@pytest.mark.parametrize("maker", ["host", "guest"])
def test_hostile_links(share: Share, maker: str) -> None:
    """They are the guest's to follow, in its own files."""
    links = LINKS | {"outside": str(share.outside), "secret": str(share.outside / "secret")}
    if maker == "host":
        for name, target in links.items():
            (share.here / name).symlink_to(target)
    else:
        for name, target in links.items():
            share.run(f"ln -s {target} {name}")
    assert {path.name: str(path.readlink()) for path in share.here.iterdir()} == links
    command(share.guest, "echo the guest has its own > /etc/passwd")
    for name in ("absolute", "upwards", "process"):
        assert share.run(f"cat {name}") == "the guest has its own"
    assert share.run("ls -d folder/passwd") == "folder/passwd"
    for name in ("outside/secret", "secret", "self"):
        assert share.run(f"cat {name} > /dev/null && echo reached") != "reached"
    for name, target in links.items():
        assert share.run(f"readlink {name}") == target
    # Writing through them changes the guest's files, not the host's.
    passwd = Path("/etc/passwd").read_bytes()
    share.run("for name in absolute upwards secret; do echo attack > $name; done")
    share.run("echo attack > outside/new; echo attack > folder/attack; rm /etc/attack")
    assert Path("/etc/passwd").read_bytes() == passwd
    assert not Path("/etc/attack").exists()
    assert [path.name for path in share.outside.iterdir()] == ["secret"]
    assert share.run("rm *; ls") == ""
    assert list(share.here.iterdir()) == []


def test_a_folder_that_becomes_a_link(share: Share) -> None:
    """The host swaps a folder that the guest is in for a link to outside: the guest stays in the folder."""
    inner = share.here / "inner"
    inner.mkdir()
    (inner / "secret").write_text("public")
    command(share.guest, f"cd {share.there}/inner")
    assert command(share.guest, "cat secret") == "public"
    inner.rename(share.here / "moved")
    inner.symlink_to(share.outside)
    assert command(share.guest, "cat secret; cd /") == "public"
    until_prints(share.guest, f"readlink {share.there}/inner", str(share.outside))
    assert SECRET not in share.run("cat inner/secret")


def test_read_only_refuses_changes(rig: Rig) -> None:
    guest = rig.guest
    (rig.readonly / "file").write_text("as it is\n")
    (rig.readonly / "folder").mkdir(exist_ok=True)
    until_prints(guest, "cat /tmp/ro/file", "as it is")
    before = (rig.readonly / "file").stat()
    for attempt in (
        "echo more >> file",
        "echo new > new",
        "rm file",
        "mv file other",
        "mkdir other",
        "rmdir folder",
        "ln file other",
        "ln -s file other",
        "chmod 777 file",
        "touch file",
        "truncate -s 0 file",
        "mknod other p",
    ):
        refused = command(guest, f"cd /tmp/ro; ({attempt}) 2>&1; cd /")
        assert "Read-only file system" in refused, f"{attempt}: {refused}"
    # Also when the guest has not mounted it as such, and asks as root.
    assert command(guest, "mount -o remount,rw /tmp/ro; echo x > /tmp/ro/file; cat /tmp/ro/file").endswith(
        "as it is"
    )
    after = (rig.readonly / "file").stat()
    assert sorted(path.name for path in rig.readonly.iterdir()) == ["file", "folder"]
    assert (after.st_mtime_ns, after.st_mode, after.st_size) == (
        before.st_mtime_ns,
        before.st_mode,
        before.st_size,
    )


def test_mounted_again_after_a_reset(rig: Rig, share: Share, compatibility: Compatibility) -> None:
    guest = rig.guest
    share.run("echo written > kept; exec 3> open; echo held >&3")
    guest.reset()
    reach_shell(guest)
    rig.mount()
    assert share.run("cat kept open; echo more >> kept; rm open; ls") == "written\nheld\nkept"
    assert (share.here / "kept").read_text() == "written\nmore\n"
    command(guest, "umount /tmp/rw")
    command(guest, "mount -t virtiofs writable /tmp/rw")
    assert share.run("cat kept") == "written\nmore"
    check_health(guest)
    board, ring = rig.place
    compatibility.row(
        guest=NAMES["debian"],
        boots=f"directly on {board}, shared folders on {TRANSPORTS[board]} with {ring} rings",
        checked="a thousand files and a big one both ways; programs run; links stay inside; read-only; reset",
    )

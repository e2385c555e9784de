"""Guests as files: what comes out goes in again, and what an enemy made does not."""

import hashlib
import io
import json
import shutil
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from manager_rig import definition, managed

from emuvisor.errors import EmuvisorError, StateError, UsageError
from emuvisor.manager.archive import Member, members, write_end, write_header
from emuvisor.units import MIB


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "user.img"
    path.write_bytes(b"base".ljust(MIB, b"\0"))
    return path


def full(folder, disk):
    """A guest with every kind of file."""
    for name in ("rom", "share"):
        (folder / name).write_bytes(b"\x55\xaa\x01".ljust(512, b"\0")) if name == "rom" else (
            folder / name
        ).mkdir(exist_ok=True)
    return definition(
        folder,
        "web",
        board="pc",
        memory=4 * MIB,
        clock="host",
        option_roms=[str(folder / "rom")],
        disks=[{"path": str(disk), "overlay": "temporary"}, {"path": str(disk), "kind": "cdrom"}],
        shares=[{"path": str(folder / "share"), "tag": "x"}],
        nics=[{"forwards": ["tcp:0:80"]}],
    )


def test_out_and_in(tmp_path, disk):
    with managed(tmp_path, 64 * MIB) as manager:
        manager.create(full(tmp_path, disk))
        manager.start("web")
        manager.guest("web").machine.drives[0].image.write(0, b"mine".ljust(512, b"\0"))
        manager.snapshot("web", "one")
        manager.guest("web").machine.drives[0].image.write(0, b"then".ljust(512, b"\0"))
        heard = []
        size = manager.export("web", tmp_path / "on.tar", progress=lambda *now: heard.append(now))
        assert (tmp_path / "on.tar").stat().st_size == size
        assert heard[-1][0] == heard[-1][1]
        manager.stop("web")
        manager.export("web", tmp_path / "off.tar")
        manager.export("web", tmp_path / "one.tar", snapshot="one")
        assert manager.events()[-1].details["left_out"] == ["shares", "forwards"]
        assert not list(tmp_path.glob(".*"))
    with tarfile.open(tmp_path / "on.tar") as tar:  # anybody's tar reads it
        assert tar.getnames() == ["export.json", "flat", "rom0", "disk0", "disk1"]
    other = tmp_path / "other"
    other.mkdir()
    with managed(other, 64 * MIB) as manager:
        for name, content in (("on", b"then"), ("off", b"then"), ("one", b"mine")):
            info = manager.import_(tmp_path / f"{name}.tar", name)
            assert (info.name, info.state) == (name, "defined")
            manager.start(name, paused=True)
            assert manager.guest(name).machine.drives[0].image.read(0, 1)[:4] == content
            manager.stop(name)
        assert "shares" not in manager.definition("on")
        files = {name for name in manager.store.disks() if name.startswith("on.")}
        assert files == {"on.disk0", "on.disk1", "on.flat", "on.rom0"}
        manager.remove("on")
        assert not {name for name in manager.store.disks() if name.startswith("on.")}
        manager.import_(tmp_path / "on.tar")
        with pytest.raises(StateError, match=r"^there is a guest 'web' already$"):
            manager.import_(tmp_path / "on.tar")


def test_a_file_that_is_there_stays(tmp_path, manager, define):
    manager.create(define("web"))
    (tmp_path / "x").write_text("mine")
    with pytest.raises(UsageError) as error:
        manager.export("web", tmp_path / "x")
    assert str(error.value) == f"{tmp_path / 'x'}: the file exists already"


# ---- what an enemy makes ----


def archive(manifest, files):
    out = io.BytesIO()
    text = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    for name, content in (("export.json", text), *files.items()):
        write_header(out, name, len(content))
        out.write(content + bytes(-len(content) % 512))
    write_end(out)
    return out.getvalue()


def described(files):
    return {n: {"size": len(c), "sha256": hashlib.sha256(c).hexdigest()} for n, c in files.items()}


def plain(files=None, **keys):
    files = {"flat": b"\xeb\xfe"} if files is None else files
    made = {"name": "web", "board": "isa", "memory": MIB, "flat": {"path": "flat", "address": 0x8000}, **keys}
    return {"format": 1, "definition": made, "files": described(files)}


def qcow2(backing=0, features=0, version=3, magic=b"QFI\xfb"):
    return (
        magic
        + version.to_bytes(4, "big")
        + backing.to_bytes(8, "big")
        + bytes(56)
        + features.to_bytes(8, "big")
        + bytes(24)
    )


FLAT = {"flat": b"\xeb\xfe"}
DISK = {"disks": [{"path": "disk0", "format": "qcow2"}], "board": "pc"}


def disk_export(**header):
    files = FLAT | {"disk0": qcow2(**header)}
    return archive(plain(files, **DISK), files)


def linked(kind):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo("export.json")
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    return out.getvalue()


def elsewhere(name):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(tarfile.TarInfo(name))
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is cut off"),
        (bytes(1024), "it is no export of a guest"),
        (b"x" * 1024, "it is no tar file"),
        (linked(tarfile.SYMTYPE), "'export.json' is no regular file"),
        (linked(tarfile.LNKTYPE), "'export.json' is no regular file"),
        (linked(tarfile.CHRTYPE), "'export.json' is no regular file"),
        (linked(tarfile.DIRTYPE), "'export.json/' is no regular file"),
        (elsewhere("../../export.json"), "'../../export.json' is not a name that an export has"),
        (elsewhere("/etc/passwd"), "'/etc/passwd' is not a name that an export has"),
        (elsewhere("a" * 60 + "/" + "b" * 90), f"{'b' * 90!r} is not a name that an export has"),
        (archive(plain(), FLAT)[:1540], "it is cut off: 'flat' should have 2 bytes"),
        (archive(b"{", {}), "export.json is no JSON"),
        (archive(b"[" * 100_000, {}), "export.json is no JSON"),
        (archive(b"[]", {}), "it is no export of a guest"),
        (archive(b" " * (MIB + 1), {}), "it is no export of a guest"),
        (archive({"format": 2}, {}), "it is an export of format 2; this version reads 1"),
        (archive({"format": 1, "files": {}}, {}), "export.json has no definition"),
        (archive({"format": 1, "definition": {}}, {}), "export.json has no files"),
        (archive(plain() | {"files": {"flat": 1}}, {}), "export.json does not say how large 'flat' is"),
        (archive(plain(), {}), "the files in it are not those that it says it has"),
        (archive(plain(), FLAT | {"more": b""}), "the files in it are not those that it says it has"),
        (archive(plain(), {"flat": b"\xeb\xfe\x90"}), "'flat' has 3 bytes, not 2"),
        (archive(plain(), {"flat": b"\xeb\xfd"}), "'flat' is damaged: its hash is another one"),
        (archive(plain() | {"definition": {"name": 5}}, FLAT), "its definition: name: 5 is not text"),
        (
            archive(plain(name="../x"), FLAT),
            "its definition: name: '../x' is not 1 to 64 letters, digits, '-', '_' or '.'",
        ),
        (
            archive(plain(flat={"path": "/etc/passwd", "address": 0}), FLAT),
            "its definition names files that are not in it",
        ),
        (archive(plain(devices=["os:system"]), FLAT), "its definition has devices, which no export has"),
        (
            archive(plain(shares=[{"path": "/", "tag": "x"}], board="pc"), FLAT),
            "its definition has shares, which no export has",
        ),
        (
            archive(plain(nics=[{"forwards": ["tcp:0.0.0.0:22:22"]}], board="pc"), FLAT),
            "its definition has forwards, which no export has",
        ),
        (
            archive(
                plain(FLAT | {"disk0": b""}, board="pc", disks=[{"path": "disk0", "overlay": "/etc/x"}]),
                FLAT | {"disk0": b""},
            ),
            "disk0 has an overlay, which no export has",
        ),
        (
            archive(
                plain(FLAT | {"disk0": b""}, board="pc", disks=[{"path": "disk0", "format": "raw"}]),
                FLAT | {"disk0": b""},
            ),
            "disk0 is no qcow2 image",
        ),
        (disk_export(magic=b"QFI\0"), "disk0 is no qcow2 image"),
        (disk_export(backing=1 << 10), "disk0 is made of other files, which no export has"),
        (disk_export(features=4), "disk0 is made of other files, which no export has"),
    ],
)
def test_hostile_files(tmp_path, manager, content, message):
    path = tmp_path / "evil.tar"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        manager.import_(path)
    assert str(error.value) == f"{path}: {message}"
    assert manager.guests() == []
    assert manager.store.disks() == []


def test_a_bomb(tmp_path, manager, monkeypatch):
    path = tmp_path / "bomb.tar"
    path.write_bytes(archive(plain(), FLAT))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 16 * MIB + 1))
    with pytest.raises(UsageError) as error:
        manager.import_(path)
    assert str(error.value) == f"{path}: its files have 2 bytes; the store's file system has room for 1"


def header(name="x", size=0):
    out = io.BytesIO()
    write_header(out, name, size)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "size", "message"),
    [
        (header() + header(), 1024, "'x' is in it twice"),
        (header("a") + header("b") + header("c"), 1536, "there are more than 2 files in it"),
        (header(size=1 << 62), 512, f"it is cut off: 'x' should have {1 << 62} bytes"),
    ],
)
def test_archives(content, size, message):
    with pytest.raises(UsageError) as error:
        list(members(io.BytesIO(content), size, 2))
    assert str(error.value) == message


def test_sizes_beyond_octal():
    assert next(members(io.BytesIO(header(size=1 << 40)), 1 << 41, 1)) == Member("x", 1 << 40, 512)
    raw = bytearray(header())
    raw[124:136] = b"\xff" * 12
    raw[148:156] = b"%06o\0 " % (sum(raw) - sum(raw[148:156]) + 256)
    with pytest.raises(UsageError, match=r"^'x' has no size$"):
        list(members(io.BytesIO(bytes(raw)), 512, 1))


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_damage_is_one_clear_error(data):
    """Flipped bytes, cut ends: an error of ours or the same members, never anything else, never without an end."""
    content = bytearray(archive(plain(), FLAT))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    try:
        found = list(members(io.BytesIO(bytes(content)), len(content), 4))
    except EmuvisorError:
        return
    assert all(member.start + member.size <= len(content) for member in found)

"""What people type into the monitor."""

import os
import re
from typing import Any

import pytest
from qmp_rig import Rig

from emuvisor.host import GuestState
from emuvisor.machine.boards.wiring import Drive
from emuvisor.machine.config import DiskConfig, NicConfig
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB

LONG_MODE = {"efer": 0x500, "cr0": 0x8000_0011, "cr4": 0x20_0020, "cr3": 0x1000}
PRESENT = 0x7
"""And writable, and a program's: with SMAP, which LONG_MODE has on, the kernel itself must not read it by accident."""


def test_life(rig: Rig) -> None:
    guest = rig.guest()
    client = rig.client(guest)
    assert client.human("info status") == "VM status: running\r\n"
    assert client.human("stop") == ""
    assert client.human("info status") == "VM status: paused\r\n"
    assert client.human("c") == ""
    assert client.human("system_reset") == ""
    assert client.human("system_powerdown") == ""
    assert guest.machine.resets == 1
    assert client.human("q") == ""
    client.await_event("SHUTDOWN")
    client.await_event("STOP")
    assert guest.state is GuestState.DEFINED
    assert client.human("info status") == "VM status: paused (shutdown)\r\n"


def test_snapshots(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    client = rig.client(rig.guest())
    assert client.human("info snapshots") == "There is no snapshot available.\r\n"
    assert client.human("savevm 'a snapshot'") == ""
    heading, line = client.human("info snapshots").splitlines()
    assert heading.split() == ["ID", "TAG", "VM", "SIZE", "DATE"]
    assert re.fullmatch(r"1 +a snapshot +[0-9.]+ KiB \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line)
    assert client.human("loadvm 'a snapshot'") == ""
    assert client.human("delvm 'a snapshot'") == ""
    assert client.human("loadvm x") == "Error: guest 'g' has no snapshot 'x'\r\n"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", ""),
        ("frobnicate now", "unknown command: 'frobnicate'"),
        ("info weather", "Error: there is no info on 'weather'; 'info' lists what there is"),
        ("stop it", "Error: extraneous characters at the end of line: 'it'"),
        ("quit it", "Error: extraneous characters at the end of line: 'it'"),
        ("savevm", "Error: a name is missing"),
        ("savevm 'a", "savevm 'a: No closing quotation"),
        ("help frobnicate", "Error: unknown command: 'frobnicate'"),
        ("help stop", "stop -- pause the guest: stop"),
        ("balloon much", "Error: invalid number: 'much'"),
        ("balloon 4", "Error: No balloon device has been activated"),
        ("screendump /none/x", "Error: guest 'g': the isa board has no display"),
        ("sendkey a-nokey", "Error: no key is called 'nokey'; names are short ones, such as 'a', 'ret' or 'ctrl', or "
         "those of W3C UI Events, such as 'KeyA'"),
        ("sendkey ctrl-c 100", ""),
        ("info name", "g"),
        ("info uuid", "00000000-0000-0000-0000-000000000000"),
        ("info kvm", "kvm support: not compiled"),
        ("info memory_size_summary", f"base memory: {MIB}\r\nplugged memory: 0"),
        ("info migrate", ""),
        ("info network", ""),
        ("migrate_set_parameter downtime-limit 100", ""),
        ("migrate_set_parameter speed 100", "Error: Parameter 'speed' is unexpected"),
        ("migrate_cancel", ""),
        ("migrate exec:cat", "Error: Parameter 'uri' expects a valid migration protocol"),
        ("migrate tcp:h:1", "guest 'g' is in no store; only guests of a store can be migrated by QMP"),
        ("migrate -d tcp:h:1", ""),
        ("x" * 4097, "a line has at most 4096 characters"),
    ],
)  # fmt: skip
def test_lines(rig: Rig, line: str, text: str) -> None:
    client = rig.client(rig.guest())
    assert client.human(line) == (f"{text}\r\n" if text else "")


def test_processors(rig: Rig) -> None:
    assert rig.client(rig.guest()).human("info cpus") == f"* CPU #0: thread_id={os.getpid()}\r\n"


def test_help_knows_all(rig: Rig) -> None:
    client = rig.client(rig.guest())
    lines = client.human("help").splitlines()
    assert "xp -- show memory by physical address: xp/4xw ADDRESS" in lines
    assert len(lines) == 18
    assert "info status -- whether it runs" in client.human("info").splitlines()
    version = client.greeting["QMP"]["version"]["package"]
    assert client.human("info version") == f"9.0.0 ({version})\r\n"


def test_screen_and_balloon(rig: Rig) -> None:
    client = rig.client(rig.guest(board="pc", memory=16 * MIB, balloon=True))
    assert client.human(f"screendump {rig.folder / 'a'}") == ""
    assert (rig.folder / "a").read_bytes()[:3] == b"P6\n"
    assert client.human(f"screendump {rig.folder / 'b'} -f png") == ""
    assert (rig.folder / "b").read_bytes()[:4] == b"\x89PNG"
    assert client.human("balloon 12") == ""
    assert client.human("info balloon") == "balloon: actual=16\r\n"


def test_disks_and_cards(rig: Rig) -> None:
    image = rig.folder / "disk.img"
    image.write_bytes(bytes(MIB))
    (rig.folder / "cd.iso").write_bytes(bytes(40 << 10))
    rig.host.add_network(NetworkConfig("lan"))
    guest = rig.guest(
        board="pc",
        memory=16 * MIB,
        clock="host",
        disks=(DiskConfig(image), DiskConfig(rig.folder / "cd.iso", kind="cdrom")),
        nics=(NicConfig("lan", mac="52:54:00:00:00:01"),),
    )
    client = rig.client(guest)
    assert client.human("info block").splitlines() == [
        f"ide0-hd0: {image} (raw)",
        "    Attached to:      /machine/peripheral-anon/ide0-hd0",
        f"ide0-cd1: {rig.folder / 'cd.iso'} (raw, read-only)",
        "    Attached to:      /machine/peripheral-anon/ide0-cd1",
        "    Removable device: not locked, tray closed",
    ]
    zeros = " ".join(
        f"{key}=0"
        for key in (
            *("rd_bytes", "wr_bytes", "rd_operations", "wr_operations", "flush_operations"),
            *("wr_total_time_ns", "rd_total_time_ns", "flush_total_time_ns"),
        )
    )
    assert client.human("info blockstats").splitlines() == [f"ide0-hd0: {zeros}", f"ide0-cd1: {zeros}"]
    assert client.human("info network").splitlines() == [
        "net0: index=0,type=nic,model=virtio-net,macaddr=52:54:00:00:00:01",
        " \\ lan: index=0,type=hub",
    ]


def test_a_drive_without_a_medium(rig: Rig) -> None:
    (rig.folder / "floppy.img").write_bytes(bytes(1440 << 10))
    disks = (DiskConfig(rig.folder / "floppy.img", kind="floppy"),)
    guest = rig.guest(board="pc", memory=16 * MIB, disks=disks)
    image = guest.machine.drives[0].image
    assert image is not None
    image.close()
    guest.machine.drives[0] = Drive("floppy", None)
    assert rig.client(guest).human("info block") == "floppy0: [not inserted]\r\n"


def test_registers(rig: Rig) -> None:
    guest = rig.guest(board="pc", memory=16 * MIB, vcpus=2)
    guest.pause()
    state = guest.machine.vcpu.state
    state.rax, state.rip = 0x1234, 0x10
    guest.machine.vcpu.state = state
    client = rig.client(guest)
    lines = client.human("info registers").splitlines()
    assert lines[0] == "CPU#0"
    assert lines[1].startswith("RAX=0000000000001234 RBX=0000000000000000 ")
    assert lines[5].startswith("RIP=0000000000000010 RFL=00000002 CPL=0 ")
    assert lines[7] == "CS =0800 0000000000008000 0000ffff 00009b00"
    assert client.human("info registers -a").count("CPU#") == 2
    assert client.human("info registers", cpu_index=1).startswith("CPU#1\r\n")
    assert client.human("info registers", cpu_index=2) == "Error: there is no processor 2; there are 2\r\n"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("xp 0x7000", "0000000000007000: 0x03020100"),
        ("xp/2xb 0x7000", "0000000000007000: 0x00 0x01"),
        ("xp/2hx 0x7000", "0000000000007000: 0x0100 0x0302"),
        ("xp/1xg 0x7000", "0000000000007000: 0x0706050403020100"),
        ("xp/3db 0x70fe", "00000000000070fe: -2 -1 0"),
        ("xp/2ub 0x70fe", "00000000000070fe: 254 255"),
        ("xp/2ob 0x7008", "0000000000007008: 0o10 0o11"),
        ("xp/3c 0x7040", "0000000000007040: '@' 'A' 'B'"),
        ("xp/1c 0x7001", "0000000000007001: '\\x01'"),
        ("xp/5w 0x7000", "0000000000007000: 0x03020100 0x07060504 0x0b0a0908 0x0f0e0d0c\r\n"
         "0000000000007010: 0x13121110"),
        ("xp/2i 0x8000", "0x00008000:  eb fe                           jmp 0x8000\r\n"
         "0x00008002:  00 00                           add byte ptr [bx + si], al"),
        ("x/2xb 28672", "0000000000007000: 0x00 0x01"),
        ("xp/0x 0", "Error: 1 to 4096 items can be shown, not 0"),
        ("xp/4097x 0", "Error: 1 to 4096 items can be shown, not 4097"),
        ("xp/4xz 0", "Error: invalid format: '4xz'; write it as in x/4xw"),
        ("xp 0x10000000000000000", "Error: 0x10000000000000000 is no address"),
        ("xp 0xfffffffffffffffe", "Error: Cannot access memory: nothing is at 0xfffffffffffffffe"),
    ],
)  # fmt: skip
def test_memory(rig: Rig, line: str, text: str) -> None:
    guest = rig.guest()
    guest.pause()
    guest.memory.write(0x7000, bytes(range(256)) + bytes(8))
    assert rig.client(guest).human(line) == f"{text}\r\n"


def test_memory_by_virtual_address(rig: Rig) -> None:
    """Two pages of four-level tables; nothing in them changes."""
    guest = rig.guest()
    guest.pause()
    tables: dict[int, Any] = {0x1000: 0x2000, 0x2000: 0x3000, 0x3000: 0x4000}
    for table, next_table in tables.items():
        guest.memory.write(table, (next_table | PRESENT).to_bytes(8, "little"))
    entries = (0x7000 | PRESENT).to_bytes(8, "little") + (0x6000 | PRESENT).to_bytes(8, "little")
    guest.memory.write(0x4000, entries)
    guest.memory.write(0x7FFC, b"\x01\x02\x03\x04")
    guest.memory.write(0x6000, b"\x90\xc3\x05\x06")
    vcpu = guest.machine.vcpu
    state = vcpu.state
    for name, value in LONG_MODE.items():
        setattr(state, name, value)
    state.cs.flags = 0x20_9B00
    vcpu.state = state
    client = rig.client(guest)
    assert client.human("x/2xw 0xffc") == "0000000000000ffc: 0x04030201 0x0605c390\r\n"
    assert client.human("x/9i 0x1000").splitlines()[:2] == [
        "0x00001000:  90                              nop",
        "0x00001001:  c3                              ret",
    ]
    assert client.human("x 0x2000") == "Error: Cannot access memory: 0x2000 is not mapped\r\n"
    assert client.human("x 0x800000000000") == (
        "Error: Cannot access memory: 0x800000000000 is not mapped\r\n"
    )
    assert guest.memory.read(0x4000, 16) == entries
    state.cr3 = 1 << 30  # no memory is there
    vcpu.state = state
    assert client.human("x 0") == "Error: Cannot access memory: 0x0 is not mapped\r\n"

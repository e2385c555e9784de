"""What the first guest that comes would wait for is done before it stands still."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from migrating_guests import guest_config, with_devices

from emuvisor.errors import ImageError
from emuvisor.host import Host
from emuvisor.machine.config import NicConfig
from emuvisor.migration import rehearsal
from emuvisor.migration.rehearsal import rehearse
from emuvisor.net.config import NetworkConfig
from emuvisor.units import MIB

PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from migrating_guests import with_devices
from emuvisor.host import Host
from emuvisor.migration.rehearsal import rehearse
from emuvisor.machine.machine_state import load_machine, save_machine
from emuvisor.net.config import NetworkConfig
with Host({memory}) as host:
    host.add_network(NetworkConfig("lan"))
    config = with_devices(Path({folder!r}))
    rehearse(host, config)
    before = set(sys.modules)
    machine = host.create(config).machine
    load_machine(machine, save_machine(machine))
    print(sorted(set(sys.modules) - before))
"""


def test_no_module_is_loaded_when_the_guest_comes(tmp_path: Path) -> None:
    program = PROGRAM.format(here=str(Path(__file__).parent), memory=32 * MIB, folder=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_engines_are_there_and_nothing_else_is(tmp_path: Path) -> None:
    with Host(32 * MIB, pcpus=2) as host:
        host.add_network(NetworkConfig("lan"))
        config = with_devices(tmp_path)
        assert rehearse(host, config) > 0
        engines = [dict(made) for made in host.processors._engines]
        assert [len(made) for made in engines] == [1, 1]
        assert (host.guests, host.pool.used, list(host.networks)) == ({}, 0, ["lan"])
        assert not host.networks.addresses("lan")
        guest = host.create(config)
        guest.start()
        guest.pause()
        assert [dict(made) for made in host.processors._engines] == engines


def test_what_cannot_be_built_shows_when_the_guest_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ImageError("there is no such image")

    monkeypatch.setattr(rehearsal, "Machine", refuse)
    with Host(32 * MIB) as host:
        assert rehearse(host, replace(guest_config(tmp_path), clock="host", nics=(NicConfig(),))) == 0
        assert (host.guests, list(host.networks)) == ({}, [])

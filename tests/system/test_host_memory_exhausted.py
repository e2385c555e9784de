"""A host that is really out of memory, or of room on its disk: limits of the operating system, in a process of its own.

Each ends with one message for people, or one guest does; the process goes on.
"""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from emuvisor.units import MIB

pytestmark = pytest.mark.system

TESTS = Path(__file__).parents[1] / "guest"
"""Where the helper module of the scripts is."""
PATIENCE_S = 300
PROLOGUE = """\
import resource, sys
from pathlib import Path
from paging_guests import finish, go_on, memtouch, start_filling, wait
from emuvisor.errors import EmuvisorError
from emuvisor.host import GuestState, Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import PauseRung, SwapRung
from emuvisor.units import MIB

folder = Path(sys.argv[1])

def limit(name, more):
    "Let the process have `more` bytes beyond what it has."
    pages = Path("/proc/self/statm").read_text().split()
    have = {"RLIMIT_AS": int(pages[0]), "RLIMIT_DATA": int(pages[5])}.get(name, 0) * resource.getpagesize()
    resource.setrlimit(getattr(resource, name), (have + more, have + more))
"""


def script(folder: Path, text: str) -> list[str]:
    """The lines that `text` prints, run in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + text, str(folder)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


GROW = """
hosts, guests = [], []
Host(MIB).close()
memtouch(folder, "g")
limit("{name}", {more})
try:
    while True:
        hosts.append(Host(16 * MIB))
        guests.append(hosts[-1].create(memtouch(folder, "g")))
        guests[-1].start()
        finish(hosts[-1], guests[-1])
        if guests[-1].state is GuestState.CRASHED:
            print(guests[-1].reason)
            break
except EmuvisorError as error:
    print(error)
for guest in guests[:-1]:
    print("memtouch: PASS" in guest.console.text)
for host in hosts:
    host.close()
print(all(host.pool.used == 0 for host in hosts))
"""
COMPLAINTS = {
    "the host does not give 16 MiB of address space: [Errno 12] Cannot allocate memory",
    "the host does not give 96 MiB of address space for an engine: Cannot allocate memory",
    "engine-error: the host does not give 96 MiB of address space for an engine: Cannot allocate memory",
    "the host gives no thread for pcpu0",
    "the host gives no thread for slices",
}


@pytest.mark.parametrize("name", ["RLIMIT_AS", "RLIMIT_DATA"])
@pytest.mark.parametrize("more", [8, 40, 120, 180, 240, 400, 500])
def test_hosts_until_there_is_no_memory(tmp_path: Path, name: str, more: int) -> None:
    """Wherever memory ends: those that are there go on, and close."""
    complaint, *others = script(tmp_path, GROW.format(name=name, more=more * MIB))
    assert complaint in COMPLAINTS
    assert set(others) == {"True"}


LARGE = """
limit("RLIMIT_AS", 64 * MIB)
for what in (lambda: Host(1 << 40), lambda: Host(1 << 34, memory_policy=MemoryPolicy(swap=folder / "swap"))):
    try:
        what()
    except EmuvisorError as error:
        print(error)
print(list(folder.iterdir()))
"""


def test_a_pool_that_cannot_be(tmp_path: Path) -> None:
    one, other, left = script(tmp_path, LARGE)
    assert one.startswith("a frame pool of 1099511627776 bytes is impossible; ")
    assert other == "the host does not give 16 GiB of address space: [Errno 12] Cannot allocate memory"
    assert left == "[]"


INDEX = """
Host(MIB).close()
limit("RLIMIT_AS", 32 * MIB)
try:
    Host(MIB, memory_policy=MemoryPolicy(swap=folder / "swap", swap_limit=1 << 34))
except EmuvisorError as error:
    print(error)
print(list(folder.iterdir()))
"""


def test_a_swap_file_whose_index_finds_no_memory(tmp_path: Path) -> None:
    complaint, left = script(tmp_path, INDEX)
    assert complaint == f"the host does not give 40 MiB for the index of swap file {tmp_path / 'swap'}"
    assert left == "[]"


def test_the_command_line(tmp_path: Path) -> None:
    """One line and exit code 2."""
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"no kernel")

    def scarce() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (300 * MIB, 300 * MIB))

    done = subprocess.run(
        [sys.executable, "-m", "emuvisor", "run", "--memory", "8G", "--kernel", str(kernel)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        preexec_fn=scarce,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("emuvisor: error: the host does not give ")
    assert line.endswith(" of address space: [Errno 12] Cannot allocate memory")


SWAPPING = """
alone = Host(16 * MIB)
first = alone.create(memtouch(folder, "alone"))
first.start()
finish(alone, first)
expected = first.console.text, first.machine.vcpu.work
{limit}
rungs = (SwapRung(), PauseRung())
policy = MemoryPolicy(rungs=rungs, swap=folder / {name!r}, period_s=0.02)
with Host(4 * MIB, pcpus=2, memory_policy=policy) as host:
    guests = start_filling(host, folder)
    reasons = lambda: [e.reason for e in host.events if e.new is GuestState.PAUSED and "; " in e.reason]
    wait(host, reasons, *guests)
    print(reasons()[0].split("; ")[1])
    {room}
    go_on(host, *guests)
    print(all((guest.console.text, guest.machine.vcpu.work) == expected for guest in guests))
"""


def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the guests wait until it is raised."""
    text = SWAPPING.format(
        limit="resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 4, -1))",
        name="swap",
        room="resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))",
    )
    assert script(tmp_path, text) == [f"swap file {tmp_path / 'swap'}: File too large", "True"]


def namespace(arguments: list[str], mounts: str) -> list[str]:
    """A command that runs `arguments` where mounts are its own."""
    rights = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    return ["unshare", *rights, "sh", "-c", f'{mounts} && exec "$@"', "sh", *arguments]


def test_a_file_system_that_is_full(tmp_path: Path) -> None:
    """A small tmpfs: the guests wait until somebody makes room on it."""
    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=3M tmpfs {small}"
    if subprocess.run(namespace(["true"], mount), capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a tmpfs, not even in a namespace")
    text = SWAPPING.format(
        limit='(folder / "small/ballast").write_bytes(b"x" * (11 * MIB // 4))',
        name="small/swap",
        room='(folder / "small/ballast").unlink()\n    import subprocess\n'
        '    subprocess.run(["mount", "-o", "remount,size=32M", folder / "small"], check=True)',
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        namespace([sys.executable, "-c", PROLOGUE + text, str(tmp_path)], mount),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"swap file {small / 'swap'}: No space left on device", "True"]

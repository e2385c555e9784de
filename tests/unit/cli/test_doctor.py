"""`emuvisor doctor`."""

import json
import resource
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

from emuvisor.cli import checks, main
from emuvisor.cli.checks import Finding, Status
from emuvisor.errors import EngineError
from emuvisor.images.recipes import RECIPES
from emuvisor.units import GIB, MIB

Capture = pytest.CaptureFixture[str]
GOOD = Finding("Python", Status.OK, "3.11", essential=True)
OPTIONAL = Finding("perf", Status.MISSING, "optional, to profile", "apt-get install linux-perf")


def with_checks(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    def check(finding: Finding) -> tuple[str, Callable[[], Finding], bool]:
        return finding.name, lambda: finding, finding.essential

    monkeypatch.setattr(checks, "CHECKS", tuple(map(check, findings)))


def test_this_machine_works(capsys: Capture) -> None:
    assert main(["doctor", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = {check["name"]: check for check in document["checks"]}
    assert document["usable"]
    assert list(found) == [name for name, _, _ in checks.CHECKS]
    assert found["proof"]["detail"].startswith("hello: done, powering off (")
    assert {check["status"] for check in found.values() if check["essential"]} <= {"ok", "warning"}


def test_what_is_optional_may_be_missing(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with_checks(monkeypatch, GOOD, OPTIONAL)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out == (
        "what    status   found                 what to do\n"
        "Python  ok       3.11\n"
        "perf    missing  optional, to profile  apt-get install linux-perf\n"
        "emuvisor works here.\n"
    )


@pytest.mark.parametrize("status", [Status.MISSING, Status.FAILED])
def test_what_is_essential_may_not(status: Status, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    with_checks(monkeypatch, GOOD, Finding("Unicorn", status, "unknown layout", "pip install", True))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "emuvisor does not work here: Unicorn"
    assert main(["doctor", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["usable"]


def test_a_check_that_breaks_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Finding:
        raise KeyError

    monkeypatch.setattr(checks, "CHECKS", (("memory", broken, False), ("proof", broken, True)))
    assert checks.run_checks() == [
        Finding("memory", Status.FAILED, "KeyError"),
        Finding("proof", Status.FAILED, "KeyError", essential=True),
    ]


def test_an_engine_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def engine() -> None:
        raise EngineError("unicorn 9.9: RIP is not at offset 128")

    monkeypatch.setattr("emuvisor.cpu.engine.engine", engine)
    assert checks.check_engine() == Finding(
        "Unicorn",
        Status.FAILED,
        "unicorn 9.9: RIP is not at offset 128",
        "pip install 'unicorn>=2.1.4,<2.2'",
        True,
    )


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package in ("lz4", "rich"):
            raise metadata.PackageNotFoundError(package)
        return "1"

    monkeypatch.setattr(metadata, "version", version)
    assert checks.check_packages() == Finding(
        "packages", Status.MISSING, "without rich lz4", "pip install rich lz4", True
    )


@pytest.mark.parametrize(
    ("limit", "status", "detail"),
    [
        (resource.RLIM_INFINITY, Status.OK, "no limit"),
        (8 * GIB, Status.OK, "limited to 8 GiB"),
        (GIB, Status.WARNING, "limited to 1 GiB"),
    ],
)
def test_address_space(limit: int, status: Status, detail: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    finding = checks.check_address_space()
    assert (finding.status, finding.detail) == (status, detail)


@pytest.mark.parametrize(
    ("available_mib", "limit", "status", "detail"),
    [
        (8192, None, Status.OK, "8 GiB available"),
        (100, None, Status.WARNING, "100 MiB available"),
        (8192, "max", Status.OK, "8 GiB available"),
        (8192, str((1 << 63) - 4096), Status.OK, "8 GiB available"),
        (8192, str(300 * MIB), Status.WARNING, "8 GiB available, 200 MiB left in the cgroup"),
    ],
)
def test_memory(
    *,
    available_mib: int,
    limit: str | None,
    status: Status,
    detail: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "meminfo").write_text(f"MemTotal: 1 kB\nMemAvailable: {available_mib << 10} kB\n")
    if limit is not None:
        (tmp_path / "limit").write_text(limit + "\n")
        (tmp_path / "use").write_text(f"{100 * MIB}\n")
    monkeypatch.setattr(checks, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(checks, "CGROUP_LIMITS", (tmp_path / "limit",))
    monkeypatch.setattr(checks, "CGROUP_USES", (tmp_path / "use",))
    finding = checks.check_memory()
    assert (finding.status, finding.detail) == (status, detail)


@pytest.mark.parametrize(("policy", "status"), [("0", Status.OK), ("2", Status.WARNING)])
def test_overcommit(policy: str, status: Status, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "policy").write_text(policy + "\n")
    monkeypatch.setattr(checks, "OVERCOMMIT", tmp_path / "policy")
    finding = checks.check_overcommit()
    assert (finding.status, finding.detail) == (status, f"vm.overcommit_memory = {policy}")


def test_tools_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    found = {finding.name: finding for finding in checks.run_checks()}
    for name in ("C compiler", *(tool for tool, _, _ in checks.TOOLS)):
        assert found[name].status is Status.MISSING
        assert found[name].advice
        assert not found[name].breaks


def test_images_that_are_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMUVISOR_CACHE", str(tmp_path))
    found = {finding.name: finding for finding in checks.run_checks()}
    assert found["image debian"] == Finding(
        "image debian", Status.MISSING, "optional, not in the cache", "emuvisor images pull debian"
    )


def test_the_images_looked_for_can_be_pulled() -> None:
    assert set(checks.IMAGES) <= set(RECIPES)

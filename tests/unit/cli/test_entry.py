"""Errors become messages and exit codes."""

import argparse
import errno
import os
from collections.abc import Callable
from importlib import metadata

import pytest

from emuvisor.cli import doctor, entry, main
from emuvisor.errors import HostError


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def execute(args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr(doctor, "execute", execute)


def test_an_error_of_ours_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, HostError("the host is on fire"))
    assert main(["doctor"]) == 2
    assert capsys.readouterr() == ("", "emuvisor: error: the host is on fire\n")


def test_a_host_without_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, MemoryError())
    assert main(["doctor"]) == 2
    assert capsys.readouterr() == ("", "emuvisor: error: the host has no memory left\n")


def test_an_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["doctor"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_went_away(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    replaced: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "dup2", lambda old, new: replaced.append((old, new)))
    fail_with(monkeypatch, BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert main(["doctor"]) == 141
    assert len(replaced) == 1


def test_what_is_a_bug_shows_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "emuvisor: error: the following arguments are required: COMMAND"),
        (["run", "--memory", "lots"], "emuvisor run: error: argument --memory: 'lots' is not a size; write a "
         "whole number with K, M, G or T, such as 256M"),
        (["run", "--timeout", "-1"], "emuvisor run: error: argument --timeout: '-1' is not a number of "
         "seconds above 0"),
        (["run", "--timeout", "nan"], "emuvisor run: error: argument --timeout: 'nan' is not a number of "
         "seconds above 0"),
        (["run", "--flat", "guest.bin"], "emuvisor run: error: argument --flat: 'guest.bin' is not "
         "PATH@ADDRESS[,MODE], such as guest.bin@0x8000,real16"),
        (["run", "--disk", ",readonly"], "emuvisor run: error: argument --disk: ',readonly' is not "
         "PATH[,readonly][,cdrom|floppy][,format=raw|qcow2|overlay][,bus=ide|virtio][,queues=N][,overlay=PATH|temporary]"
         "[,LIMIT=RATE[:BURST[:ONCE]]]...[,shares=N]"),
        (["run", "--disk", "a.img,sideways"], "emuvisor run: error: argument --disk: 'a.img,sideways' is not "
         "PATH[,readonly][,cdrom|floppy][,format=raw|qcow2|overlay][,bus=ide|virtio][,queues=N][,overlay=PATH|temporary]"
         "[,LIMIT=RATE[:BURST[:ONCE]]]...[,shares=N]"),
        (["run", "--disk", "a.img,read_bytes=fast"], "emuvisor run: error: argument --disk: read_bytes: "
         "'fast' is not RATE[:BURST[:ONCE]], such as 10M:64M: 'fast' is not a size; write a whole number with K, M, G "
         "or T, such as 256M"),
        (["run", "--nic", "lab,in_packets=0"], "emuvisor run: error: argument --nic: in_packets: '0' is not "
         "RATE[:BURST[:ONCE]], such as 10M:64M: a rate of 0; 1 to 1125899906842624 is allowed"),
        (["run", "--nic", "lab,speed=1"], "emuvisor run: error: argument --nic: 'lab,speed=1' is not "
         "NETWORK[,mac=MAC][,queues=N][,forward=PROTOCOL:[ADDRESS:]PORT:GUEST-PORT]...[,LIMIT=RATE[:BURST[:ONCE]]]..."),
        (["run", "--share", "folder"], "emuvisor run: error: argument --share: 'folder' is not "
         "FOLDER,TAG[,writable]"),
        (["run", "--share", "folder,tag,open"], "emuvisor run: error: argument --share: 'folder,tag,open' is not "
         "FOLDER,TAG[,writable]"),
    ],
)  # fmt: skip
def test_bad_options(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == message


@pytest.mark.parametrize(
    ("version", "text"),
    [(lambda name: "1.2.3", "emuvisor 1.2.3\n"), (None, "emuvisor (not installed)\n")],
)
def test_version(
    version: Callable[[str], str] | None,
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(entry.metadata, "version", version or missing)
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == text

"""Consoles that several look at, and their logs."""

import threading

import pytest
from manager_rig import definition, expect, managed, wait_for

from emuvisor.manager import ConsoleAttachment, LogPart, console_log
from emuvisor.manager import attachment as attachment_module
from emuvisor.manager.console_log import ConsoleLog, LogWriter
from emuvisor.store.files import HostFiles


def test_several_at_once(manager, define):
    manager.create(define("web", "echo"))
    manager.start("web")
    first, second = manager.console("web"), manager.console("web")
    first.write(b"ab")
    assert expect(first, b"ab") == b"ab"
    assert expect(second, b"ab") == b"ab"
    first.close()
    assert first.at_end
    first.close()
    second.write(b"c")
    assert expect(second, b"c") == b"c"
    late = manager.console("web")
    assert late.read(0) == b"abc"  # what was on the screen
    second.write(b"!")
    assert expect(second, b"!") == b"!"
    assert second.read(30) == b""
    assert second.at_end
    second.write(b"nobody is there")
    wait_for(manager, "web", "defined")
    assert manager.logs("web") == b"abc!"


def test_one_that_comes_too_late(manager, define):
    manager.create(define("web", "echo"))
    manager.start("web")
    consoles = manager._entries["web"].consoles
    consoles.end()
    attachment = consoles.attach(None)
    assert attachment.at_end


def test_one_who_does_not_read_loses_the_oldest(monkeypatch):
    monkeypatch.setattr(attachment_module, "MAX_WAITING", 8)
    attachment = ConsoleAttachment(b"", lambda data: None, lambda attachment: None)
    attachment.printed(b"0123456789")
    attachment.printed(b"ab")
    assert attachment.lost == 4
    assert attachment.read() == b"456789ab"


def test_reading_waits_for_what_comes():
    attachment = ConsoleAttachment(b"x" * 5000, lambda data: None, lambda attachment: None)
    assert attachment.read() == b"x" * 4096
    assert attachment.read(0) == b""
    got = []
    reader = threading.Thread(target=lambda: got.append(attachment.read(30)))
    reader.start()
    attachment.printed(b"hello")
    reader.join()
    assert got == [b"hello"]


def test_the_log_of_all_lives(tmp_path):
    with managed(tmp_path) as manager:
        manager.create(definition(tmp_path, "web", "hello"))
        for _ in range(2):
            manager.start("web")
            with manager.console("web") as console:
                expect(console, b"HI\n")
            manager.stop("web")
        assert manager.logs("web") == b"HI\nHI\n"
    with managed(tmp_path) as manager:
        assert manager.logs("web", 4) == b"\nHI\n"
        assert manager.logs("web", 0) == b""
        assert manager.log_after("web", 0) == LogPart(6, b"HI\nHI\n")
        assert manager.log_after("web", 5) == LogPart(6, b"\n")
        assert manager.log_after("web", 10**9) == LogPart(6, b"")


def test_a_log_is_bounded(tmp_path):
    log = ConsoleLog(tmp_path, HostFiles(), max_bytes=10)
    for text in (b"aaaaaa", b"bbbbbb", b"cccccc"):
        log.printed(text)
        log.flush()
    log.flush()
    assert log.read() == b"bbbbbbcccccc"
    assert log.after(0) == LogPart(18, b"bbbbbbcccccc")
    assert log.after(13) == LogPart(18, b"ccccc")


def test_one_that_prints_faster_than_the_disk_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(console_log, "MAX_WAITING", 4)
    log = ConsoleLog(tmp_path, HostFiles())
    log.printed(b"abcdef")
    assert log.waits
    assert log.read() == b"cdef"
    assert not log.waits


def test_large_logs_come_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(console_log, "MAX_PART", 4)
    log = ConsoleLog(tmp_path, HostFiles())
    log.printed(b"abcdef")
    assert log.after(0) == LogPart(4, b"abcd")
    assert log.after(4) == LogPart(6, b"ef")


def test_the_writer_writes_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(console_log, "FLUSH_S", 0.001)
    flushed = threading.Event()

    class Log(ConsoleLog):
        def flush(self):
            super().flush()
            flushed.set()

    writer = LogWriter()
    log = Log(tmp_path, HostFiles())
    writer.add(log)
    log.printed(b"hello")
    assert flushed.wait(30)
    assert log.path.read_bytes() == b"hello"
    log.printed(b"!")
    writer.close()
    assert log.path.read_bytes() == b"hello!"


@pytest.mark.parametrize("moment", ["running", "removed"])
def test_a_folder_that_is_gone(tmp_path, monkeypatch, moment):
    monkeypatch.setattr(console_log, "FLUSH_S", 0.001)
    tried = threading.Event()

    class Log(ConsoleLog):
        def flush(self):
            tried.set()
            super().flush()

    writer = LogWriter()
    log = Log(tmp_path / "gone", HostFiles())
    writer.add(log)
    log.printed(b"hello")
    if moment == "running":
        assert tried.wait(30)
    writer.close()

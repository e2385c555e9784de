import json
import os
import random

import pytest

from emuvisor.cli import connect, main
from emuvisor.manager import StoreFreed, StoreProblem
from emuvisor.store import Store


def noise(seed):
    """A page that does not shrink."""
    return random.Random(seed).randbytes(4096)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "store"
    with Store(folder) as store:
        store.define("web", "")
        for name in ("a", "b"):
            with store.new_snapshot("web", name) as draft:
                draft.put([0, 1], [noise(0), noise(name)])
                draft.commit()
    return folder


def test_info(folder, capsys):
    assert main(["store", "info", "--store", str(folder)]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert rows["guests"] == "1"
    assert rows["snapshots"] == "2 of 16 KiB of memory without zeros"
    assert rows["pages"] == "3, 1.3 times fewer than in the snapshots"
    assert main(["store", "info", "--json", "--store", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["pages"], found["snapshot_bytes"]) == (str(folder), 3, 16384)


def test_check_and_repair(folder, capsys):
    assert main(["store", "check", "--store", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: all is well\n"
    (folder / "packs" / "x.pack.new").write_text("half")
    assert main(["store", "check", "--store", str(folder)]) == 1
    wrong = f"{folder}/packs/x.pack.new: it was left behind by a crash"
    assert capsys.readouterr().out == f"{wrong}\n{folder}: 1 problems\n"
    assert main(["store", "check", "--repair", "--store", str(folder)]) == 0
    assert capsys.readouterr().out == f"{wrong} (repaired)\n{folder}: all is well\n"
    assert main(["store", "check", "--json", "--store", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out) == {"good": True, "problems": []}


def test_gc(folder, capsys):
    with Store(folder) as store:
        store.delete_snapshot("web", "a")
    assert main(["store", "gc", "--store", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: 4 KiB freed; 0 packs deleted, 1 written again\n"
    with Store(folder) as store:
        store.delete_snapshot("web", "b")
    assert main(["store", "gc", "--all", "--json", "--store", str(folder)]) == 0
    assert json.loads(capsys.readouterr().out)["packs_deleted"] == 2


@pytest.mark.parametrize("action", ["info", "check", "gc"])
def test_where_no_store_is(action, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert main(["store", action]) == 2
    assert capsys.readouterr().err == f"emuvisor: error: {tmp_path}/emuvisor is no store\n"
    assert list(tmp_path.iterdir()) == []


class Daemon:
    """A daemon that has the store, and its client."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def host(self):
        return {"store": "/its/store"}

    def check_store(self, *, repair):
        return [StoreProblem("pack 1", "2 of its pages are damaged", repair)]

    def collect_garbage(self, *, everything):
        return StoreFreed(2 if everything else 1, 0, 4096)


def test_a_daemon_has_the_store(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("emuvisor.daemon.client.Client", lambda path: Daemon())
    there = ["--socket", str(tmp_path / "socket")]
    assert main(["store", "check", *there]) == 1
    assert main(["store", "check", "--repair", *there]) == 0
    assert main(["store", "gc", "--all", *there]) == 0
    assert capsys.readouterr().out == (
        "pack 1: 2 of its pages are damaged\n/its/store: 1 problems\n"
        "pack 1: 2 of its pages are damaged (repaired)\n/its/store: all is well\n"
        "/its/store: 4 KiB freed; 2 packs deleted, 0 written again\n"
    )


def test_another_command_has_the_store(folder, capsys, monkeypatch):
    monkeypatch.setattr(connect, "PATIENCE_S", 0.0)
    with Store(folder):
        assert main(["store", "gc", "--store", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"emuvisor: error: store {folder} is in use by process {os.getpid()}; several commands at once can use the "
        "guests of 'emuvisor serve'\n"
    )

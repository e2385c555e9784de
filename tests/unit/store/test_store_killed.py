"""A process that is killed with SIGKILL while it writes."""

import multiprocessing
import random
from contextlib import suppress

from crashing_files import CrashingFiles
from store_samples import content
from store_writer import pages, write

from emuvisor.store import Store

ROUNDS = 20


def last_told(pipe):
    """The last number that the writer, who is gone, has sent; 0 for none."""
    last = 0
    with suppress(EOFError):
        while pipe.poll():
            last = pipe.recv()
    return last


def test_kill_9_at_random_moments(tmp_path):
    moments = random.Random(7)
    folder = tmp_path / "store"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["emuvisor.store"])
    for _ in range(ROUNDS):
        here, there = context.Pipe(duplex=False)
        writer = context.Process(target=write, args=(folder, there))
        writer.start()
        there.close()
        done = here.recv()
        for _ in range(moments.randrange(3)):
            done = here.recv()
        sum(range(moments.randrange(200_000)))  # another moment each time
        writer.kill()
        writer.join()
        done = max(done, last_told(here))
        here.close()
        with Store(folder, files=CrashingFiles(backup=tmp_path)) as store:
            assert store.check() == []
            names = [int(info.name) for info in store.snapshots()]
            assert max(names, default=0) in (done, done + 1)
            for number in names:
                assert content(store, "web", str(number)) == (number, pages(number))
    assert names

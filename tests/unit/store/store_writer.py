"""A process that writes snapshots until it is killed, for tests."""

from store_samples import page, snapshot

from emuvisor.store import Store


def pages(number):
    return {n: page(number + n) for n in range(1, 20)}


def write(folder, told):
    """Send the number of each snapshot when it is there."""
    with Store(folder) as store:
        if not store.guests():
            store.define("web", "")
        number = max((int(info.name) for info in store.snapshots()), default=0)
        told.send(number)
        while True:
            number += 1
            snapshot(store, "web", str(number), pages(number), number)
            told.send(number)
            if number % 3 == 0:
                store.delete_snapshot("web", str(number - 2))
                store.gc(least_dead=0.3)

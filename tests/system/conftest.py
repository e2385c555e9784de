"""Stock images from the user's cache; what is not there is skipped and says how to get it."""

from collections.abc import Generator, Iterator

import pytest
from compatibility import TABLE, Plugin, compatibility
from coverage import Coverage

from emuvisor.host import Host
from emuvisor.images.cache import Image, find
from emuvisor.units import MIB

__all__ = ["compatibility"]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Plugin(TABLE), "compatibility-table")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Boots are not measured: the tracer would more than double their time, and what our lines do is for the unit
    tests and our own guests to show."""
    measured = Coverage.current() if item.get_closest_marker("system") else None
    if measured is not None:
        measured.stop()
    try:
        return (yield)
    finally:
        if measured is not None:
            measured.start()


@pytest.fixture
def host() -> Iterator[Host]:
    with Host(1024 * MIB, pcpus=2) as host:
        yield host


def pulled(name: str) -> Image:
    image = find(name)
    if image is None:
        pytest.skip(f"the image {name!r} is not in the cache; get it with: emuvisor images pull {name}")
    return image


@pytest.fixture(scope="session")
def debian() -> Image:
    return pulled("debian")


@pytest.fixture(scope="session")
def debian_i386() -> Image:
    return pulled("debian-i386")


@pytest.fixture(scope="session")
def memtest() -> Image:
    return pulled("debian-memtest")


@pytest.fixture(scope="session")
def grub(seabios: Image) -> Image:
    return pulled("debian-grub")


@pytest.fixture(scope="session")
def syslinux(seabios: Image) -> Image:
    return pulled("debian-syslinux")


@pytest.fixture(scope="session")
def debian_system(seabios: Image) -> Image:
    return pulled("debian-system")


@pytest.fixture(scope="session")
def debian_efi() -> Image:
    return pulled("debian-efi")


@pytest.fixture(scope="session")
def seabios() -> Image:
    return pulled("seabios")


@pytest.fixture(scope="session")
def ovmf() -> Image:
    return pulled("ovmf")


@pytest.fixture(scope="session")
def ipxe(seabios: Image) -> Image:
    return pulled("ipxe")

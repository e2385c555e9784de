"""Stock images from the user's cache; what is not there is skipped and says how to get it."""

import pytest

from emuvisor.images.cache import Image, find


def pulled(name: str) -> Image:
    image = find(name)
    if image is None:
        pytest.skip(f"the image {name!r} is not in the cache; get it with: emuvisor images pull {name}")
    return image


@pytest.fixture(scope="session")
def debian() -> Image:
    return pulled("debian")


@pytest.fixture(scope="session")
def memtest() -> Image:
    return pulled("debian-memtest")

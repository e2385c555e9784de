"""The built images, and the disk that boots one."""

import pytest

from emuvisor import firmware
from emuvisor.errors import ImageError


def test_the_bios_has_its_reset_vector_at_the_end() -> None:
    bios = firmware.image("bios")
    assert len(bios) == firmware.BIOS_SIZE
    assert bios[-16] == 0xEA  # JMP ptr16:16
    assert bios[-13:-11] == b"\x00\xf0"


def test_the_boot_sector_is_signed() -> None:
    boot = firmware.image("boot")
    assert len(boot) == 512
    assert boot[510:] == b"\x55\xaa"


@pytest.mark.parametrize("name", firmware.FLAT)
def test_flat_guests_fit_below_their_page_tables(name: str) -> None:
    assert 0 < len(firmware.image(name)) <= 0x8000


def test_an_unknown_image() -> None:
    with pytest.raises(ImageError) as error:
        firmware.image("../errors")
    assert str(error.value) == (
        "'../errors' is not a firmware image; there are "
        "bios, boot, hello, ring, memtouch, spin, halt, vmexit, bioscheck, vbe, balloon, smp, dice"
    )


def test_boot_disk() -> None:
    disk = firmware.boot_disk("hello", b"parameters")
    guest = firmware.image("hello")
    assert len(disk) == 1 << 20
    assert disk[510:512] == b"\x55\xaa"
    assert disk[512:1024] == b"parameters".ljust(512, b"\0")
    assert disk[1024 : 1024 + len(guest)] == guest
    last_sector = int.from_bytes(disk[508:510], "little")
    assert last_sector * 512 < 1024 + len(guest) <= (last_sector + 1) * 512


def test_boot_disk_of_what_is_not_flat() -> None:
    with pytest.raises(ImageError) as error:
        firmware.boot_disk("bios")
    assert str(error.value) == (
        "'bios' is not a flat guest; there are hello, ring, memtouch, spin, halt, vmexit, bioscheck, vbe, balloon, "
        "smp, dice"
    )


def test_boot_disk_with_too_many_parameters() -> None:
    with pytest.raises(ImageError) as error:
        firmware.boot_disk("hello", bytes(513))
    assert str(error.value) == "hello: a parameter block has at most 512 bytes, this one has 513"

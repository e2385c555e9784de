"""From options to configurations."""

from pathlib import Path

import pytest

from emuvisor.cli import guests
from emuvisor.cli.entry import build_parser
from emuvisor.devices.limits import Rate
from emuvisor.errors import EmuvisorError
from emuvisor.images import cache
from emuvisor.images.cache import Recipe
from emuvisor.machine.config import (
    DiskConfig,
    FlatConfig,
    GuestConfig,
    KernelConfig,
    NicConfig,
    ShareConfig,
)
from emuvisor.net.config import NetworkConfig
from emuvisor.units import GIB, MIB


def configs(*argv: str) -> list[GuestConfig]:
    return guests.configs(build_parser().parse_args(["run", *argv]), "virtual")


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> cache.Image:
    """An installed image, tiny."""
    monkeypatch.setenv("EMUVISOR_CACHE", str(tmp_path))
    files = {"vmlinuz": b"kernel", "initrd": b"ramdisk"}
    return cache.install("tiny", Recipe(files, {}, "vmlinuz", "initrd", "console=ttyS0"))


def test_a_kernel_with_everything() -> None:
    (config,) = configs(
        *("--kernel", "vmlinuz", "--initrd", "initrd", "--append", "quiet", "--decompressor", "guest"),
        *("--disk", "a.img", "--disk", "b.img,readonly,floppy", "--memory", "64M", "--cpu", "haswell"),
        *("--name", "big", "--clock", "host", "--seed", "7", "--until", "login:", "--timeout", "2.5"),
    )
    assert config == GuestConfig(
        name="big",
        memory=64 * MIB,
        cpu="haswell",
        clock="host",
        seed=7,
        kernel=KernelConfig(Path("vmlinuz"), Path("initrd"), "quiet", "guest"),
        disks=(DiskConfig(Path("a.img")), DiskConfig(Path("b.img"), readonly=True, kind="floppy")),
        until="login:",
        timeout_s=2.5,
    )


def test_the_clock_that_nobody_names_is_the_callers() -> None:
    args = build_parser().parse_args(["run", "--kernel", "vmlinuz"])
    assert [guests.configs(args, clock)[0].clock for clock in ("virtual", "host")] == ["virtual", "host"]


def test_a_flat_binary() -> None:
    assert configs("--flat", "odd@name.bin@0x8000")[0].flat == FlatConfig(Path("odd@name.bin"), 0x8000)
    assert configs("--flat", "a.bin@4096,long64")[0].flat == FlatConfig(Path("a.bin"), 4096, "long64")


def test_a_disk_alone_boots_through_the_bios() -> None:
    assert configs("--disk", "a.img")[0] == GuestConfig(disks=(DiskConfig(Path("a.img")),))


def test_a_bios_of_ones_own() -> None:
    assert configs("--firmware", "bios.bin")[0].firmware == Path("bios.bin")


def test_virtio_devices() -> None:
    (config,) = configs(
        *("--kernel", "vmlinuz", "--disk", "a.qcow2,format=qcow2,queues=2,read_bytes=1M:2M,shares=7"),
        *("--disk", "b.img,bus=ide"),
        *("--disk", "c.iso,cdrom", "--disk-bus", "virtio", "--ring", "packed", "--rng", "--balloon"),
        *(
            "--nic",
            "user,forward=tcp:8080:80,forward=udp:53:53",
            "--nic",
            "lab,mac=52:54:00:00:00:01,queues=2,out_packets=9",
        ),
        *("--share", "docs,docs", "--share", "out,out,writable", "--vsock", "3"),
        *("--console-port", "log", "--input", "tablet"),
    )
    assert config == GuestConfig(
        clock="host",
        kernel=KernelConfig(Path("vmlinuz")),
        disks=(
            DiskConfig(
                Path("a.qcow2"),
                format="qcow2",
                queues=2,
                bus="virtio",
                read_bytes=Rate(MIB, 2 * MIB),
                shares=7,
            ),
            DiskConfig(Path("b.img"), bus="ide"),
            DiskConfig(Path("c.iso"), kind="cdrom"),
        ),
        nics=(
            NicConfig("user", forwards=("tcp:8080:80", "udp:53:53")),
            NicConfig("lab", "52:54:00:00:00:01", queues=2, out_packets=Rate(9)),
        ),
        shares=(ShareConfig(Path("docs"), "docs"), ShareConfig(Path("out"), "out", readonly=False)),
        rng=True,
        balloon=True,
        vsock=3,
        console_ports=("log",),
        input=("tablet",),
        ring="packed",
    )


def test_networks_that_only_cards_name_lead_nowhere(tmp_path: Path) -> None:
    (config,) = configs("--kernel", "k", "--nic", "user", "--nic", "lab", "--nic", "out", "--nic", "lab")
    assert guests.networks(None, [config]) == [NetworkConfig("lab"), NetworkConfig("out")]
    file = tmp_path / "networks.toml"
    file.write_text('[[networks]]\nname = "out"\nuplink = "user"\n')
    assert guests.networks(file, [config]) == [NetworkConfig("out", uplink="user"), NetworkConfig("lab")]


def test_drives_of_every_kind() -> None:
    options = ("a.img,overlay=a.overlay", "b.img,overlay=temporary", "c.iso,cdrom", "d.img,floppy,readonly")
    (config,) = configs(*(word for option in options for word in ("--disk", option)))
    assert config.disks == (
        DiskConfig(Path("a.img"), overlay=Path("a.overlay")),
        DiskConfig(Path("b.img"), overlay="temporary"),
        DiskConfig(Path("c.iso"), kind="cdrom"),
        DiskConfig(Path("d.img"), readonly=True, kind="floppy"),
    )


def test_board_firmware_and_devices() -> None:
    (config,) = configs(
        *("--disk", "a.img", "--board", "pc", "--firmware", "seabios", "--device", "my:Lamp"),
        *("--option-rom", "net.rom", "--firmware-variables", "vars.fd"),
    )
    assert config == GuestConfig(
        board="pc",
        firmware="seabios",
        firmware_variables=Path("vars.fd"),
        disks=(DiskConfig(Path("a.img")),),
        option_roms=(Path("net.rom"),),
        devices=("my:Lamp",),
    )


def test_an_image_that_boots_from_its_disk(image: cache.Image) -> None:
    cache.install("system", Recipe({"disk.img": b"disk"}, {}, disk="disk.img", firmware="seabios"))
    (config,) = configs("--image", "system", "--disk", "more.img")
    assert config.firmware == "seabios"
    first, second = config.disks
    assert (first.path.name, first.overlay, second) == ("disk.img", "temporary", DiskConfig(Path("more.img")))


def test_an_image(image: cache.Image) -> None:
    (config,) = configs("--image", "tiny", "--append", "quiet", "--decompressor", "guest")
    assert config.kernel == KernelConfig(image.kernel, image.initrd, "console=ttyS0 quiet", "guest")


def test_options_go_before_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "guest.toml"
    file.write_text('name = "one"\nmemory = "64M"\nuntil = "x"\nclock = "host"\n[[disks]]\npath = "a.img"\n')
    (config,) = configs("--config", str(file), "--memory", "1G", "--timeout", "9", "--name", "two")
    assert (config.name, config.memory, config.until, config.timeout_s) == ("two", GIB, "x", 9)
    assert config.clock == "host"
    assert config.disks == (DiskConfig(tmp_path / "a.img"),)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "nothing to boot: give --image, --kernel, --flat, --firmware, --disk or --config"),
        ("--kernel k --firmware f", "--kernel and --firmware: a guest boots from one of them"),
        ("--image tiny --kernel k", "--image and --kernel: a guest boots from one of them"),
        ("--disk d --initrd i --append a", "--initrd, --append without --kernel or --image"),
        ("--image tiny --initrd i", "--initrd with --image: the image has its own"),
        ("--image none", "there is no image 'none'; 'emuvisor images list' shows what there is"),
        (
            "--image debian",
            "the image 'debian' is not here yet; get it with: emuvisor images pull debian",
        ),
        (
            "--config ONE --kernel k --disk d",
            "--kernel, --disk with --config: what the guest boots stands in the configuration",
        ),
        ("--config ONE --config TWO --name x", "--name is for one guest; there are 2 --config"),
        (
            "--config ONE --config ONE --config TWO",
            "2 guests are called 'one'; give each configuration a name of its own",
        ),
        ("--kernel k --name ''", "name: \"''\" is not 1 to 64 letters, digits, '-', '_' or '.'"),
        ("--flat f@0,sideways", "flat.mode: 'sideways' is not one of real16, protected32, long64"),
    ],
)
@pytest.mark.usefixtures("image")
def test_conflicts(argv: str, message: str, tmp_path: Path) -> None:
    files = {}
    for name in ("ONE", "TWO"):
        files[name] = tmp_path / f"{name}.toml"
        files[name].write_text(f'name = "{name.lower()}"\n[[disks]]\npath = "a.img"\n')
    with pytest.raises(EmuvisorError) as error:
        configs(*(str(files.get(word, word)) for word in argv.split()))
    assert str(error.value) == message


def test_several_processors() -> None:
    (guest,) = configs("--disk", "a.img", "--vcpus", "4")
    assert guest.vcpus == 4


def test_the_pool_holds_all_guests_as_far_as_a_pool_goes() -> None:
    small = GuestConfig(memory=64 * MIB, disks=(DiskConfig(Path("a.img")),))
    huge = GuestConfig(memory=512 * GIB, disks=(DiskConfig(Path("a.img")),))
    (growing,) = configs("--disk", "a.img", "--memory", "64M", "--memory-max", "96M")
    assert guests.pool_size([small, small]) == 2 * 65 * MIB
    assert guests.pool_size([small, growing]) == (65 + 97) * MIB
    assert guests.pool_size([small, huge]) == 64 * GIB - 4096


def test_a_claim_to_pcpus(tmp_path: Path) -> None:
    options = ["--cpu-weight", "300", "--cpu-cap", "50", "--cpu-reservation", "12.5", "--cpu-limit", "100M"]
    options += ["--cpu-affinity", "0,2-3", "--cpu-period", "5ms", "--cpu-latency", "2ms"]
    (config,) = configs("--kernel", "vmlinuz", *options)
    assert config == GuestConfig(
        kernel=KernelConfig(Path("vmlinuz")),
        cpu_weight=300,
        cpu_cap=50,
        cpu_reservation=12.5,
        cpu_limit=100 * MIB,
        cpu_affinity=(0, 2, 3),
        cpu_period_us=5000,
        cpu_latency_us=2000,
    )
    file = tmp_path / "guest.toml"
    file.write_text('cpu_weight = 7\ncpu_cap = 30\n[kernel]\npath = "k"\n')
    (config,) = configs("--config", str(file), "--cpu-weight", "8", "--cpu-latency", "100us")
    assert (config.cpu_weight, config.cpu_cap, config.cpu_latency_us) == (8, 30, 100)

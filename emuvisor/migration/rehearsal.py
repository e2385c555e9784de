"""Doing beforehand what would otherwise happen while the guest stands still."""

from contextlib import suppress
from dataclasses import replace

from emuvisor.errors import EmuvisorError
from emuvisor.host.host import Host
from emuvisor.machine.config import GuestConfig
from emuvisor.machine.machine import Machine
from emuvisor.machine.machine_state import load_machine, save_machine
from emuvisor.memory import FramePool

__all__ = ["rehearse"]


def rehearse(host: Host, config: GuestConfig) -> None:
    """Let this process load the modules and `host` start the threads that a guest of `config` needs. A machine like it,
    without disks and networks, is built, and its state loaded: what cannot be built here shows when the guest comes.

    Raises HostError when the host gives no thread.
    """
    with host.lock:
        host.start_threads()
    with suppress(EmuvisorError):
        like = replace(config, disks=(), nics=(), shares=(), firmware_variables=None)
        machine = Machine(like, FramePool(config.memory))
        try:
            load_machine(machine, save_machine(machine))
        finally:
            machine.close()

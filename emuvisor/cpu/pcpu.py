"""A physical CPU: one Unicorn engine, which runs one vCPU after another."""

from emuvisor.cpu import _core
from emuvisor.cpu.engine import engine, require_space
from emuvisor.cpu.exits import Access, Exit, ExitReason
from emuvisor.cpu.models import DEFAULT_MODEL, CpuModel
from emuvisor.cpu.vcpu import Vcpu, engine_frames
from emuvisor.errors import EngineError
from emuvisor.memory import FramePool

__all__ = ["Pcpu"]

_SIMPLE = {reason.value: Exit(reason) for reason in ExitReason}


class Pcpu:
    """An engine over all frames of `pool`, with the instructions of `model`. To be used by one thread at a time."""

    def __init__(self, pool: FramePool, model: CpuModel = DEFAULT_MODEL) -> None:
        engine()
        require_space()
        try:
            self._core = _core.Pcpu(engine_frames(pool), model.engine)
        except RuntimeError as error:
            raise EngineError(str(error)) from None
        self.model = model

    def run(self, vcpu: Vcpu, budget: int) -> Exit:
        """Run `vcpu` until an exit, for at most `budget` bytes of guest code.

        The state of the vCPU that ran before is put away first. Other threads run meanwhile. What a handler of the
        vCPU raises comes out here.
        """
        reason = self._core.run(vcpu, budget)
        if reason in (ExitReason.PORT, ExitReason.MMIO):
            address, value, size, write, mmio = vcpu.access
            return Exit(ExitReason(reason), access=Access(address, size, write, value, mmio))
        if reason == ExitReason.DEBUG:
            return Exit(ExitReason.DEBUG, address=vcpu.stop_address)
        if reason == ExitReason.ERROR:
            return Exit(ExitReason.ERROR, message=vcpu.error)
        return _SIMPLE[reason]

    def unload(self) -> None:
        """Put the state of the vCPU that ran last away."""
        self._core.unload()

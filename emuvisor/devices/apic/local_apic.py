"""A processor's local APIC.

Source: Intel SDM volume 3, chapter 10, as the Pentium 4 has it (xAPIC: version 14h, 8-bit IDs, memory-mapped). Left
out: SMI (no system management mode), remote read (reads 0), focus processor checking (the bit is kept), the
thermal and performance sources (their vector table entries are kept), EOI broadcast suppression.
"""

from collections.abc import Callable
from functools import partial

from emuvisor.bus.clock import Clock
from emuvisor.bus.device import SavedState, check_saved
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import Fields, Flag, InputLevel, Number, load_fields, save_fields, saved_part
from emuvisor.devices.apic import registers as reg
from emuvisor.devices.apic.apic_bus import ApicBus
from emuvisor.devices.apic.apic_timer import ApicTimer
from emuvisor.devices.apic.message import (
    BROADCAST,
    DELIVERY_MODE,
    EXTINT,
    FIRST_LEGAL_VECTOR,
    FIXED,
    INIT,
    LEVEL_ASSERT,
    LEVEL_TRIGGERED,
    LOGICAL,
    LOWEST_PRIORITY,
    MASKED,
    NMI,
    REMOTE_IRR,
    STARTUP,
    VECTOR,
)
from emuvisor.units import NS_PER_S

__all__ = ["LocalApic"]

ALL_VECTORS = (1 << 256) - 1
WORD_BITS = 32
WORD = 0xFFFFFFFF
CR8_SHIFT = 4

_DEVICE = "local-apic"
_VERSION = 1
_FIELDS = Fields(
    {
        "apic_id": Number(0xFF),
        "enabled": Flag(),
        "tpr": Number(0xFF),
        "logical_id": Number(0xFF),
        "dfr": Number(reg.DFR_FLAT, minimum=reg.DFR_FLAT & ~reg.DFR_MODEL),
        "svr": Number(reg.SVR_WRITABLE),
        "isr": Number(ALL_VECTORS),
        "tmr": Number(ALL_VECTORS),
        "irr": Number(ALL_VECTORS),
        "esr": Number(reg.ESR_BITS),
        "errors": Number(reg.ESR_BITS),
        "icr_low": Number(reg.ICR_LOW_WRITABLE),
        "destination": Number(0xFF),
        **{entry.attribute: Number(entry.writable | MASKED | REMOTE_IRR) for entry in reg.LVT.values()},
        "extint_latched": Flag(),
        "waiting_for_sipi": Flag(),
        "lint0_level": Flag(),
        "lint1_level": Flag(),
        "bypass_level": Flag(),
    }
)


class LocalApic:
    """One processor's interrupt controller: a 4 KiB page of 32-bit registers, each at a multiple of 16 bytes.

    `on_intr(level)` is the processor's INTR input and hears changes only; `on_nmi`, `on_init` and
    `on_sipi(vector)` are events. `extint` is the 8259s' acknowledge cycle, asked for the vector of an external
    interrupt. `lint0` and `lint1` are the input pins, which are INTR and NMI while the APIC is disabled;
    `bypass` leads past the APIC to INTR (see `imcr`). The registers ISR, TMR and IRR are integers with a bit
    for each vector. The timer counts at `timer_hz`. `bootstrap` says whether the processor starts by itself
    or waits for a SIPI.

    The polarity bits are kept and not used: a line that is high is one that requests, whatever the wire does.
    """

    name = _DEVICE

    def __init__(
        self,
        *,
        clock: Clock,
        apic_id: int,
        bus: ApicBus,
        on_intr: Callable[[bool], None],
        on_nmi: Callable[[], None],
        on_init: Callable[[], None],
        on_sipi: Callable[[int], None],
        extint: Callable[[], int | None] = lambda: None,
        timer_hz: int = NS_PER_S,
        bootstrap: bool = True,
    ) -> None:
        self._bus = bus
        self._intr = InterruptLine(on_intr, "INTR")
        self._on_nmi = on_nmi
        self._on_init = on_init
        self._on_sipi = on_sipi
        self._extint = extint
        self._id_at_reset = apic_id
        self._bootstrap = bootstrap
        self.timer = ApicTimer(clock=clock, hz=timer_hz, on_expiry=self._timer_expired)
        self.lint0 = InterruptLine(partial(self._pin_changed, "lvt_lint0", EXTINT), "LINT0")
        self.lint1 = InterruptLine(partial(self._pin_changed, "lvt_lint1", NMI), "LINT1")
        self.bypass = InterruptLine(lambda _: self._update_intr(), "INTR bypass")
        self._readers = self._make_readers()
        self._writers = self._make_writers()
        self.reset()
        bus.connect(self)

    def _clear(self) -> None:
        """The registers but the ID, as an INIT leaves them (SDM 10.4.7)."""
        self.tpr = 0
        self.logical_id = 0
        self.dfr = reg.DFR_FLAT
        self.svr = reg.SVR_AT_RESET
        self.isr = 0
        self.tmr = 0
        self.irr = 0
        self.esr = 0
        self.errors = 0
        """Found since ESR was last written; the write shows them."""
        self.icr_low = 0
        self.destination = 0
        self.lvt_timer = MASKED
        self.lvt_thermal = MASKED
        self.lvt_performance = MASKED
        self.lvt_lint0 = MASKED
        self.lvt_lint1 = MASKED
        self.lvt_error = MASKED
        self.extint_latched = False
        """An external interrupt came as a message and has not been acknowledged."""
        self.timer.reset()
        self._update_priority()

    def reset(self) -> None:
        """As after power-on: enabled by IA32_APIC_BASE, disabled by software. Pins keep their levels."""
        self.apic_id = self._id_at_reset
        self.enabled = True
        self.waiting_for_sipi = not self._bootstrap
        self._clear()

    def set_virtual_wire(self) -> None:
        """As a BIOS leaves the bootstrap processor's APIC for a system that knows the 8259s only.

        Enabled, LINT0 external, LINT1 NMI: MultiProcessor Specification 1.4, section 3.6.2.2.
        """
        self._write_svr(reg.SVR_ENABLE | reg.SVR_VECTOR)
        self._write_lvt(reg.LVT_LINT0, EXTINT)
        self._write_lvt(reg.LVT_LINT1, NMI)

    # The register page.

    def read(self, offset: int, size: int) -> int:
        """A register, or its low part; 0 between the registers, all ones while the APIC is disabled."""
        if not self.enabled:
            return (1 << 8 * size) - 1
        reader = self._readers.get(offset)
        if reader is not None and size >= reg.REGISTER_BYTES:
            return reader()
        start = offset - offset % reg.REGISTER_STRIDE
        reader = self._readers.get(start)
        if reader is None:
            self._note_error(reg.ESR_ILLEGAL_REGISTER)
            return 0
        return reader() >> 8 * (offset - start) & (1 << 8 * size) - 1

    def write(self, offset: int, value: int, size: int) -> None:
        """Set a register. Whatever is not a whole register at its offset has no effect."""
        if not self.enabled:
            return
        writer = self._writers.get(offset)
        if writer is not None and size >= reg.REGISTER_BYTES:
            writer(value & WORD)
        elif offset - offset % reg.REGISTER_STRIDE not in self._readers:
            self._note_error(reg.ESR_ILLEGAL_REGISTER)

    def _make_readers(self) -> dict[int, Callable[[], int]]:
        def nothing() -> int:
            return 0

        def vectors(attribute: str, word: int) -> int:
            bits: int = getattr(self, attribute)
            return bits >> word * WORD_BITS & WORD

        def lvt(attribute: str) -> int:
            entry: int = getattr(self, attribute)
            return entry

        readers: dict[int, Callable[[], int]] = {
            reg.ID: lambda: self.apic_id << reg.ID_SHIFT,
            reg.VERSION: lambda: reg.VERSION_VALUE,
            reg.TASK_PRIORITY: lambda: self.tpr,
            reg.ARBITRATION_PRIORITY: self.arbitration_priority,
            reg.PROCESSOR_PRIORITY: lambda: self.ppr,
            reg.END_OF_INTERRUPT: nothing,
            reg.REMOTE_READ: nothing,
            reg.LOGICAL_DESTINATION: lambda: self.logical_id << reg.ID_SHIFT,
            reg.DESTINATION_FORMAT: lambda: self.dfr,
            reg.SPURIOUS_VECTOR: lambda: self.svr,
            reg.ERROR_STATUS: lambda: self.esr,
            reg.INTERRUPT_COMMAND_LOW: lambda: self.icr_low,
            reg.INTERRUPT_COMMAND_HIGH: lambda: self.destination << reg.ID_SHIFT,
            reg.INITIAL_COUNT: lambda: self.timer.initial_count,
            reg.CURRENT_COUNT: self.timer.current_count,
            reg.DIVIDE_CONFIGURATION: lambda: self.timer.divide_configuration,
        }
        vector_registers = (
            (reg.IN_SERVICE, "isr"),
            (reg.TRIGGER_MODE, "tmr"),
            (reg.INTERRUPT_REQUEST, "irr"),
        )
        for first, attribute in vector_registers:
            for word in range(reg.VECTOR_WORDS):
                readers[first + word * reg.REGISTER_STRIDE] = partial(vectors, attribute, word)
        for offset, entry in reg.LVT.items():
            readers[offset] = partial(lvt, entry.attribute)
        return readers

    def _make_writers(self) -> dict[int, Callable[[int], None]]:
        writers: dict[int, Callable[[int], None]] = {
            reg.ID: self._write_id,
            reg.TASK_PRIORITY: self._write_tpr,
            reg.END_OF_INTERRUPT: self._write_eoi,
            reg.LOGICAL_DESTINATION: self._write_ldr,
            reg.DESTINATION_FORMAT: self._write_dfr,
            reg.SPURIOUS_VECTOR: self._write_svr,
            reg.ERROR_STATUS: self._write_esr,
            reg.INTERRUPT_COMMAND_LOW: self._write_icr_low,
            reg.INTERRUPT_COMMAND_HIGH: self._write_icr_high,
            reg.INITIAL_COUNT: self.timer.write_initial_count,
            reg.DIVIDE_CONFIGURATION: self.timer.write_divide_configuration,
        }
        for offset in reg.LVT:
            writers[offset] = partial(self._write_lvt, offset)
        return writers

    def _write_id(self, value: int) -> None:
        self.apic_id = value >> reg.ID_SHIFT

    def _write_ldr(self, value: int) -> None:
        self.logical_id = value >> reg.ID_SHIFT

    def _write_dfr(self, value: int) -> None:
        self.dfr = value | reg.DFR_FLAT & ~reg.DFR_MODEL

    def _write_tpr(self, value: int) -> None:
        self.tpr = value & 0xFF
        self._update_priority()

    def _write_eoi(self, value: int) -> None:
        isr = self.isr
        if not isr:
            return
        vector = isr.bit_length() - 1
        self.isr = isr ^ 1 << vector
        self._update_priority()
        if self.tmr >> vector & 1:
            self._end_level_interrupt(vector)

    def _write_svr(self, value: int) -> None:
        was_enabled = self.takes_fixed()
        self.svr = value & reg.SVR_WRITABLE
        if self.takes_fixed():
            if not was_enabled:
                self._bus.offer_again()
        else:
            for offset, entry in reg.LVT.items():
                self._write_lvt(offset, getattr(self, entry.attribute) | MASKED)
        self._update_intr()

    def _write_esr(self, value: int) -> None:
        self.esr, self.errors = self.errors, 0

    def _write_icr_high(self, value: int) -> None:
        self.destination = value >> reg.ID_SHIFT

    def _write_icr_low(self, value: int) -> None:
        self.icr_low = value & reg.ICR_LOW_WRITABLE
        mode = value & DELIVERY_MODE
        if mode == INIT:
            if value & LEVEL_TRIGGERED and not value & LEVEL_ASSERT:
                return  # the de-assertion only synchronizes arbitration IDs, which nothing here needs
        elif mode in (FIXED, LOWEST_PRIORITY) and value & VECTOR < FIRST_LEGAL_VECTOR:
            self._note_error(reg.ESR_SEND_ILLEGAL_VECTOR)
            return
        elif mode == EXTINT:
            return  # reserved in this register
        # All but INIT ignore the trigger mode (SDM 10.6.1): what processors send each other is an edge.
        message = value & (VECTOR | DELIVERY_MODE | LOGICAL)
        shorthand = value & reg.ICR_SHORTHAND
        if not shorthand:
            self._bus.send(message, self.destination)
        elif shorthand == reg.ICR_TO_SELF:
            self.receive(message)
        else:
            self._bus.send_to_all(message, but=self if shorthand == reg.ICR_TO_OTHERS else None)

    def _write_lvt(self, offset: int, value: int) -> None:
        attribute, writable = reg.LVT[offset]
        value &= writable
        if not self.takes_fixed():
            value |= MASKED
        if value & LEVEL_TRIGGERED:
            value |= getattr(self, attribute) & REMOTE_IRR
        setattr(self, attribute, value)
        if offset == reg.LVT_TIMER:
            self.timer.configure(periodic=bool(value & reg.TIMER_PERIODIC), masked=bool(value & MASKED))
        elif offset in (reg.LVT_LINT0, reg.LVT_LINT1):
            self._sample_pin(attribute)

    # The processor's side.

    def acknowledge(self) -> int | None:
        """The vector of the interrupt that the processor accepts, which is now in service.

        An external interrupt's is the 8259s'. With no request left it is the spurious vector, or what the 8259s
        say while the APIC is disabled; None when they are not there.
        """
        if self._external_request():
            self.extint_latched = False
            self._update_intr()  # the pin may still be high
            return self._extint()
        if self.irr >> self._floor:
            vector = self.irr.bit_length() - 1
            bit = 1 << vector
            self.irr ^= bit
            self.isr |= bit
            self._update_priority()
            return vector
        return self.svr & reg.SVR_VECTOR if self.takes_fixed() else self._extint()

    @property
    def tpr_cr8(self) -> int:
        """The task priority's class, as CR8 has it (SDM 10.8.6)."""
        return self.tpr >> CR8_SHIFT

    @tpr_cr8.setter
    def tpr_cr8(self, value: int) -> None:
        self._write_tpr((value & reg.PRIORITY_SUBCLASS) << CR8_SHIFT)

    @property
    def base_msr(self) -> int:
        """IA32_APIC_BASE."""
        bootstrap = reg.BASE_BOOTSTRAP if self._bootstrap else 0
        return reg.BASE_ADDRESS | (reg.BASE_ENABLE if self.enabled else 0) | bootstrap

    def write_base_msr(self, value: int) -> bool:
        """Set IA32_APIC_BASE; False, and no change, for another address and for reserved bits (#GP).

        Disabling clears the registers: enabled again, the APIC is as after power-up (SDM 10.4.3). The bootstrap
        flag stays what it is.
        """
        if value & ~(reg.BASE_BOOTSTRAP | reg.BASE_ENABLE) != reg.BASE_ADDRESS:
            return False
        enabled = bool(value & reg.BASE_ENABLE)
        if enabled != self.enabled:
            self.enabled = enabled
            self._clear()
        return True

    # The bus's side.

    def matches_logical(self, destination: int) -> bool:
        """Whether this APIC belongs to the logical destination (SDM 10.6.2.2)."""
        if self.dfr == reg.DFR_FLAT:
            return bool(destination & self.logical_id)
        if destination == BROADCAST:
            return True
        difference = destination ^ self.logical_id
        return not difference & reg.CLUSTER and bool(destination & self.logical_id & reg.CLUSTER_MEMBERS)

    def takes_fixed(self) -> bool:
        """Whether software has enabled the APIC."""
        return self.enabled and bool(self.svr & reg.SVR_ENABLE)

    def arbitration_priority(self) -> int:
        """APR: the highest of task, pending and serviced priority (SDM volume 3, 10.6.2.4)."""
        request_class = max(self.irr.bit_length() - 1, 0) & reg.PRIORITY_CLASS
        service_class = max(self.isr.bit_length() - 1, 0) & reg.PRIORITY_CLASS
        task_class = self.tpr & reg.PRIORITY_CLASS
        if task_class >= request_class and task_class > service_class:
            return self.tpr
        return max(task_class, request_class, service_class)

    def receive(self, message: int) -> bool:
        """Take a message; whether it was accepted. Software-disabled, the APIC takes no fixed interrupts."""
        if not self.enabled:
            return False
        mode = message & DELIVERY_MODE
        if mode in (FIXED, LOWEST_PRIORITY):
            return self._accept(message & VECTOR, bool(message & LEVEL_TRIGGERED))
        if mode == NMI:
            self._on_nmi()
        elif mode == INIT:
            self.waiting_for_sipi = not self._bootstrap
            self._clear()
            self._on_init()
        elif mode == STARTUP:
            if self.waiting_for_sipi:
                self.waiting_for_sipi = False
                self._on_sipi(message & VECTOR)
        elif mode == EXTINT:
            self.extint_latched = True
            self._update_intr()
        return True

    # Accepting interrupts.

    def _accept(self, vector: int, level_triggered: bool) -> bool:
        if not self.svr & reg.SVR_ENABLE:
            return False
        if vector < FIRST_LEGAL_VECTOR:
            self._note_error(reg.ESR_RECEIVE_ILLEGAL_VECTOR)
            return False
        bit = 1 << vector
        self.irr |= bit
        if level_triggered:
            self.tmr |= bit
        else:
            self.tmr &= ~bit
        self._update_intr()
        return True

    def _note_error(self, error: int) -> None:
        self.errors |= error
        entry = self.lvt_error
        # An illegal vector in this very entry would be the next error, and so on.
        if not entry & MASKED and entry & VECTOR >= FIRST_LEGAL_VECTOR:
            self._accept(entry & VECTOR, level_triggered=False)

    def _timer_expired(self) -> None:
        # Masked, the timer does not call.
        self._accept(self.lvt_timer & VECTOR, level_triggered=False)

    def _end_level_interrupt(self, vector: int) -> None:
        for attribute in ("lvt_lint0", "lvt_lint1"):
            entry: int = getattr(self, attribute)
            if entry & REMOTE_IRR and entry & VECTOR == vector:
                setattr(self, attribute, entry & ~REMOTE_IRR)
                self._sample_pin(attribute)
        self._bus.end_of_interrupt(vector)

    def _update_priority(self) -> None:
        """Work out PPR (SDM 10.8.3.1) from the task priority and what is in service."""
        tpr = self.tpr
        isr = self.isr
        ppr = tpr
        if isr:
            service_class = isr.bit_length() - 1 & reg.PRIORITY_CLASS
            if service_class > tpr & reg.PRIORITY_CLASS:
                ppr = service_class
        self.ppr = ppr
        self._floor = (ppr | reg.PRIORITY_SUBCLASS) + 1
        """The lowest vector that may interrupt."""
        self._update_intr()

    def _update_intr(self) -> None:
        self._intr.set(self.irr >> self._floor != 0 or self._external_request())

    def _external_request(self) -> bool:
        """Whether the 8259s interrupt, past the APIC, through LINT0 or by a message. They obey no priority."""
        if self.bypass.level or self.extint_latched:
            return True
        if not self.lint0.level:
            return False
        return not self.takes_fixed() or self.lvt_lint0 & (DELIVERY_MODE | MASKED) == EXTINT

    # The pins.

    def _pin_changed(self, attribute: str, mode_while_disabled: int, level: bool) -> None:
        entry: int = getattr(self, attribute)
        if not self.takes_fixed():
            entry = mode_while_disabled
        mode = entry & DELIVERY_MODE
        if mode == FIXED and entry & LEVEL_TRIGGERED:
            self._sample_pin(attribute)
        elif level and not entry & MASKED:
            if mode == NMI:
                self._on_nmi()
            elif mode in (FIXED, INIT):
                self.receive(entry & (VECTOR | DELIVERY_MODE))
        self._update_intr()

    def _sample_pin(self, attribute: str) -> None:
        """Request the interrupt of a level-triggered pin that is high, unless one is under way."""
        line = self.lint0 if attribute == "lvt_lint0" else self.lint1
        entry: int = getattr(self, attribute)
        level_triggered = entry & (DELIVERY_MODE | LEVEL_TRIGGERED) == FIXED | LEVEL_TRIGGERED
        wanted = level_triggered and line.level and not entry & (MASKED | REMOTE_IRR)
        if wanted and self._accept(entry & VECTOR, level_triggered=True):
            setattr(self, attribute, entry | REMOTE_IRR)
        self._update_intr()

    # Saving.

    lint0_level = InputLevel("lint0")

    lint1_level = InputLevel("lint1")

    bypass_level = InputLevel("bypass")

    def save(self) -> SavedState:
        """The registers and the timer as plain data."""
        state = save_fields(self, _DEVICE, _VERSION, _FIELDS)
        state["timer"] = self.timer.save()
        return state

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        check_saved(state, _DEVICE, _VERSION)
        self.timer.load(saved_part(state, _DEVICE, "timer"))
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)
        self._update_priority()

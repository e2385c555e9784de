"""Intel 8042 keyboard controller of a PC, without a second (mouse) port.

Source: IBM PC/AT Technical Reference, "Keyboard Controller"; command names of the PS/2 where they differ.
Drivers learn that there is no second port from its interface test, which fails, and from its loopback, which
is not marked.
"""

from collections.abc import Callable
from typing import Self

from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import Data, Fields, Flag, Number, load_fields, save_fields
from emuvisor.devices.a20 import A20Gate
from emuvisor.devices.keyboard import Keyboard
from emuvisor.devices.keymap import BREAK, RELEASED, TO_SET_1

__all__ = ["I8042", "ControllerPort"]

# The chip's A0 pin: port 60h and port 64h of a PC.
DATA = 0
COMMAND = 1

# Status register.
OBF = 0x01
SYS = 0x04
A2 = 0x08
"""The last byte written was a command."""
INH = 0x10
"""The key lock is open."""

# Command byte, the first of 32 bytes of RAM.
COMMAND_BYTE = 0
INT = 0x01
DISABLE_KEYBOARD = 0x10
XLAT = 0x40
COMMAND_BYTE_DEFAULT = INT | SYS | XLAT
"""As a BIOS leaves it, for guests that are started without one."""
RAM_SIZE = 32
RAM_MASK = RAM_SIZE - 1

# Commands.
READ_RAM = range(0x20, 0x40)
WRITE_RAM = range(0x60, 0x80)
TEST_PASSWORD = 0xA4
TEST_AUX = 0xA9
SELF_TEST = 0xAA
TEST_KEYBOARD = 0xAB
DISABLE_KEYBOARD_COMMAND = 0xAD
ENABLE_KEYBOARD_COMMAND = 0xAE
READ_INPUT_PORT = 0xC0
READ_OUTPUT_PORT = 0xD0
WRITE_OUTPUT_PORT = 0xD1
WRITE_KEYBOARD_OUTPUT = 0xD2
WRITE_AUX_OUTPUT = 0xD3
WRITE_AUX = 0xD4
READ_TEST_INPUTS = 0xE0
PULSE_OUTPUT_PORT = range(0xF0, 0x100)
"""The low four bits say which pins of the output port stay up."""
WITH_DATA = (*WRITE_RAM, WRITE_OUTPUT_PORT, WRITE_KEYBOARD_OUTPUT, WRITE_AUX_OUTPUT, WRITE_AUX)

# Answers.
NO_PASSWORD = 0xF1
SELF_TEST_PASSED = 0x55
INTERFACE_OK = 0x00
INTERFACE_CLOCK_LOW = 0x01
KEY_LOCK_OPEN = 0x80

# Output port.
RESET_HIGH = 0x01
"""Pin 0 keeps the processor running while it is up."""
A20_PIN = 0x02
IRQ1_PIN = 0x10
KEYBOARD_CLOCK_AND_DATA = 0xC0

_DEVICE = "i8042"
_VERSION = 1
_FIELDS: Fields = {
    "ram": Data(RAM_SIZE, minimum=RAM_SIZE),
    "output": Number(0xFF),
    "output_full": Flag(),
    "reply": Number(0xFF, optional=True),
    "expecting": Number(0xFF, optional=True),
    "last_was_command": Flag(),
    "translated_break": Flag(),
    "irq_level": Flag(),
}


class ControllerPort:
    """One of the controller's two ports as a device of its own, for they lie apart on the bus."""

    def __init__(self, controller: "I8042", register: int, name: str) -> None:
        self.name = name
        self._controller = controller
        self._register = register

    def read(self, offset: int, size: int) -> int:
        """The controller's register."""
        return self._controller.read(self._register, size)

    def write(self, offset: int, value: int, size: int) -> None:
        """The controller's register."""
        self._controller.write(self._register, value, size)

    def reset(self) -> None:
        """Reset the controller."""
        self._controller.reset()


class I8042:
    """The controller between `keyboard` and the bus: attach `data` (60h) and `command` (64h).

    `irq` is IRQ 1; `a20` is shared with port 92h; `on_reset()` resets the processor.
    """

    name = _DEVICE

    def __init__(
        self, *, keyboard: Keyboard, irq: InterruptLine, a20: A20Gate, on_reset: Callable[[], None]
    ) -> None:
        self._keyboard = keyboard
        self._irq = irq
        self._a20 = a20
        self._on_reset = on_reset
        self.data = ControllerPort(self, DATA, "i8042-data")
        self.command = ControllerPort(self, COMMAND, "i8042-command")
        self.ram = bytearray(RAM_SIZE)
        self._clear()
        keyboard.connect(self._load_output)

    def _clear(self) -> None:
        self.ram[:] = bytes(RAM_SIZE)
        self.ram[COMMAND_BYTE] = COMMAND_BYTE_DEFAULT
        self.output = 0
        self.output_full = False
        self.reply: int | None = None
        """The controller's own answer while the output buffer is full."""
        self.expecting: int | None = None
        """The command whose data byte is the next write to the data port."""
        self.last_was_command = False
        self.translated_break = False
        """The translation has seen set 2's release code and marks the next byte."""

    def reset(self) -> None:
        """As after power-on. The keyboard and the A20 gate have their own reset."""
        self._clear()
        self._irq.set(False)

    def read(self, offset: int, size: int) -> int:
        """The output buffer or the status."""
        if offset == DATA:
            return self._read_output()
        status = INH | self.ram[COMMAND_BYTE] & SYS
        if self.output_full:
            status |= OBF
        if self.last_was_command:
            status |= A2
        return status

    def write(self, offset: int, value: int, size: int) -> None:
        """A byte to the keyboard or for the last command, or a command."""
        value &= 0xFF
        self.last_was_command = offset == COMMAND
        if offset == COMMAND:
            self.expecting = value if value in WITH_DATA else None
            self._run(value)
        elif self.expecting is None:
            self.ram[COMMAND_BYTE] &= ~DISABLE_KEYBOARD
            self._keyboard.send(value)
        else:
            command, self.expecting = self.expecting, None
            self._run_with_data(command, value)
        self._load_output()

    @property
    def irq_level(self) -> bool:
        """The interrupt line; setting it drives the line."""
        return self._irq.level

    @irq_level.setter
    def irq_level(self, level: bool) -> None:
        self._irq.set(level)

    def save(self) -> SavedState:
        """The controller's state as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    @classmethod
    def restore(
        cls,
        state: SavedState,
        *,
        keyboard: Keyboard,
        irq: InterruptLine,
        a20: A20Gate,
        on_reset: Callable[[], None],
    ) -> Self:
        """The controller as it was saved, wired to a restored keyboard. Raises SnapshotError."""
        controller = cls(keyboard=keyboard, irq=irq, a20=a20, on_reset=on_reset)
        load_fields(controller, state, _DEVICE, _VERSION, _FIELDS)
        return controller

    def _read_output(self) -> int:
        value = self.output
        if self.output_full:
            self.output_full = False
            self._irq.set(False)
            self._load_output()
        return value

    def _load_output(self) -> None:
        """Fill an empty output buffer: with the controller's answer, else with the keyboard's next byte."""
        if not self.output_full:
            if self.reply is not None:
                self._fill(self.reply)
                self.reply = None
            elif not self.ram[COMMAND_BYTE] & DISABLE_KEYBOARD:
                self._take_from_keyboard()
        self._irq.set(self.output_full and bool(self.ram[COMMAND_BYTE] & INT))

    def _take_from_keyboard(self) -> None:
        while self._keyboard.has_data:
            code = self._keyboard.take()
            if not self.ram[COMMAND_BYTE] & XLAT:
                self._fill(code)
                return
            if code != BREAK:
                self._fill(TO_SET_1[code] | (RELEASED if self.translated_break else 0))
                self.translated_break = False
                return
            self.translated_break = True

    def _fill(self, value: int) -> None:
        self.output = value
        self.output_full = True

    def _run(self, command: int) -> None:
        if command in READ_RAM:
            self.reply = self.ram[command & RAM_MASK]
        elif command == TEST_PASSWORD:
            self.reply = NO_PASSWORD
        elif command == TEST_AUX:
            self.reply = INTERFACE_CLOCK_LOW
        elif command == SELF_TEST:
            self.ram[COMMAND_BYTE] |= SYS
            self.reply = SELF_TEST_PASSED
        elif command == TEST_KEYBOARD:
            self.reply = INTERFACE_OK
        elif command == DISABLE_KEYBOARD_COMMAND:
            self.ram[COMMAND_BYTE] |= DISABLE_KEYBOARD
        elif command == ENABLE_KEYBOARD_COMMAND:
            self.ram[COMMAND_BYTE] &= ~DISABLE_KEYBOARD
        elif command == READ_INPUT_PORT:
            self.reply = KEY_LOCK_OPEN
        elif command == READ_OUTPUT_PORT:
            self.reply = self._output_port()
        elif command == READ_TEST_INPUTS:
            self.reply = 0
        elif command in PULSE_OUTPUT_PORT and not command & RESET_HIGH:
            self._on_reset()

    def _run_with_data(self, command: int, value: int) -> None:
        if command in WRITE_RAM:
            self.ram[command & RAM_MASK] = value
        elif command == WRITE_OUTPUT_PORT:
            self._a20.set(bool(value & A20_PIN))
            if not value & RESET_HIGH:
                self._on_reset()
        elif command in (WRITE_KEYBOARD_OUTPUT, WRITE_AUX_OUTPUT):
            self.reply = value  # without a second port the loopback is not marked as its data
        # WRITE_AUX: nobody is there to take the byte.

    def _output_port(self) -> int:
        value = RESET_HIGH | KEYBOARD_CLOCK_AND_DATA
        if self._a20.enabled:
            value |= A20_PIN
        if self.output_full:
            value |= IRQ1_PIN
        return value

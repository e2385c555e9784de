"""Intel 8042 keyboard controller of a PC, with or without a second (auxiliary) port for a mouse.

Sources: IBM PC/AT Technical Reference, "Keyboard Controller"; IBM PS/2 Hardware Interface Technical Reference,
"Keyboard and Auxiliary Device Controller". Without a mouse there is no second port: drivers learn that from its
interface test, which fails, and from its loopback, which is not marked.
"""

from collections.abc import Callable

from emuvisor.bus.device import SavedState
from emuvisor.bus.irq import InterruptLine
from emuvisor.bus.saved import Data, Fields, Flag, LineLevel, Number, load_fields, save_fields
from emuvisor.devices.a20 import A20Gate
from emuvisor.devices.keyboard import Keyboard
from emuvisor.devices.keymap import BREAK, RELEASED, TO_SET_1
from emuvisor.devices.mouse import Mouse

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
AUX_OBF = 0x20
"""The output buffer's byte is the auxiliary device's."""

# Command byte, the first of 32 bytes of RAM.
COMMAND_BYTE = 0
INT = 0x01
INT2 = 0x02
DISABLE_KEYBOARD = 0x10
DISABLE_AUX = 0x20
XLAT = 0x40
COMMAND_BYTE_DEFAULT = INT | SYS | XLAT
"""As a BIOS leaves it, for guests that are started without one."""
RAM_SIZE = 32
RAM_MASK = RAM_SIZE - 1

# Commands.
READ_RAM = range(0x20, 0x40)
WRITE_RAM = range(0x60, 0x80)
TEST_PASSWORD = 0xA4
DISABLE_AUX_COMMAND = 0xA7
ENABLE_AUX_COMMAND = 0xA8
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
IRQ12_PIN = 0x20
KEYBOARD_CLOCK_AND_DATA = 0xC0

_DEVICE = "i8042"
_VERSION = 1
_FIELDS = Fields(
    {
        "ram": Data(RAM_SIZE, minimum=RAM_SIZE),
        "output": Number(0xFF),
        "output_full": Flag(),
        "output_is_aux": Flag(),
        "reply": Number(0xFF, optional=True),
        "reply_is_aux": Flag(),
        "expecting": Number(0xFF, optional=True),
        "last_was_command": Flag(),
        "translated_break": Flag(),
        "irq_level": Flag(),
        "aux_irq_level": Flag(),
    }
)


def _unconnected(_level: bool) -> None:
    """Where IRQ 12 goes without a mouse."""


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
    """The controller between `keyboard`, `mouse` and the bus: attach `data` (60h) and `command` (64h).

    `irq` is IRQ 1, `aux_irq` IRQ 12 (of use only with a mouse); `a20` is shared with port 92h; `on_reset()`
    resets the processor.
    """

    name = _DEVICE

    def __init__(
        self,
        *,
        keyboard: Keyboard,
        irq: InterruptLine,
        a20: A20Gate,
        on_reset: Callable[[], None],
        mouse: Mouse | None = None,
        aux_irq: InterruptLine | None = None,
    ) -> None:
        self._keyboard = keyboard
        self._mouse = mouse
        self._irq = irq
        self._aux_irq = aux_irq or InterruptLine(_unconnected)
        self._a20 = a20
        self._on_reset = on_reset
        self.data = ControllerPort(self, DATA, "i8042-data")
        self.command = ControllerPort(self, COMMAND, "i8042-command")
        self.ram = bytearray(RAM_SIZE)
        self._clear()
        keyboard.connect(self._load_output)
        if mouse is not None:
            mouse.connect(self._load_output)

    def _clear(self) -> None:
        self.ram[:] = bytes(RAM_SIZE)
        self.ram[COMMAND_BYTE] = COMMAND_BYTE_DEFAULT
        self.output = 0
        self.output_full = False
        self.output_is_aux = False
        self.reply: int | None = None
        """The controller's own answer while the output buffer is full."""
        self.reply_is_aux = False
        self.expecting: int | None = None
        """The command whose data byte is the next write to the data port."""
        self.last_was_command = False
        self.translated_break = False
        """The translation has seen set 2's release code and marks the next byte."""

    def reset(self) -> None:
        """As after power-on. The keyboard, the mouse and the A20 gate have their own reset."""
        self._clear()
        self._drive_irqs()

    def read(self, offset: int, size: int) -> int:
        """The output buffer or the status."""
        if offset == DATA:
            return self._read_output()
        status = INH | self.ram[COMMAND_BYTE] & SYS
        if self.output_full:
            status |= OBF | AUX_OBF if self.output_is_aux else OBF
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

    irq_level = LineLevel("_irq")
    """The interrupt line."""

    aux_irq_level = LineLevel("_aux_irq")
    """The auxiliary device's interrupt line."""

    def save(self) -> SavedState:
        """The controller's state as plain data."""
        return save_fields(self, _DEVICE, _VERSION, _FIELDS)

    def load(self, state: SavedState) -> None:
        """Take over what `save` gave. Raises SnapshotError."""
        load_fields(self, state, _DEVICE, _VERSION, _FIELDS)

    def _read_output(self) -> int:
        value = self.output
        if self.output_full:
            self.output_full = False
            self._drive_irqs()
            self._load_output()
        return value

    def _load_output(self) -> None:
        """Fill an empty output buffer: with the controller's answer, else the keyboard's or mouse's next byte."""
        if not self.output_full:
            if self.reply is not None:
                self._fill(self.reply, aux=self.reply_is_aux)
                self.reply = None
            else:
                if not self.ram[COMMAND_BYTE] & DISABLE_KEYBOARD:
                    self._take_from_keyboard()
                if not self.output_full and not self.ram[COMMAND_BYTE] & DISABLE_AUX:
                    self._take_from_mouse()
        self._drive_irqs()

    def _drive_irqs(self) -> None:
        enabled = self.ram[COMMAND_BYTE]
        self._irq.set(self.output_full and not self.output_is_aux and bool(enabled & INT))
        self._aux_irq.set(self.output_full and self.output_is_aux and bool(enabled & INT2))

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

    def _take_from_mouse(self) -> None:
        if self._mouse is not None and self._mouse.has_data:
            self._fill(self._mouse.take(), aux=True)

    def _fill(self, value: int, aux: bool = False) -> None:
        self.output = value
        self.output_full = True
        self.output_is_aux = aux

    def _answer(self, value: int, aux: bool = False) -> None:
        self.reply = value
        self.reply_is_aux = aux

    def _run(self, command: int) -> None:
        if command in READ_RAM:
            self._answer(self.ram[command & RAM_MASK])
        elif command == TEST_PASSWORD:
            self._answer(NO_PASSWORD)
        elif command == TEST_AUX:
            self._answer(INTERFACE_CLOCK_LOW if self._mouse is None else INTERFACE_OK)
        elif command == DISABLE_AUX_COMMAND:
            self.ram[COMMAND_BYTE] |= DISABLE_AUX
        elif command == ENABLE_AUX_COMMAND:
            self.ram[COMMAND_BYTE] &= ~DISABLE_AUX
        elif command == SELF_TEST:
            self.ram[COMMAND_BYTE] |= SYS
            self._answer(SELF_TEST_PASSED)
        elif command == TEST_KEYBOARD:
            self._answer(INTERFACE_OK)
        elif command == DISABLE_KEYBOARD_COMMAND:
            self.ram[COMMAND_BYTE] |= DISABLE_KEYBOARD
        elif command == ENABLE_KEYBOARD_COMMAND:
            self.ram[COMMAND_BYTE] &= ~DISABLE_KEYBOARD
        elif command == READ_INPUT_PORT:
            self._answer(KEY_LOCK_OPEN)
        elif command == READ_OUTPUT_PORT:
            self._answer(self._output_port())
        elif command == READ_TEST_INPUTS:
            self._answer(0)
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
            self._answer(value, aux=command == WRITE_AUX_OUTPUT and self._mouse is not None)
        elif self._mouse is not None:
            self.ram[COMMAND_BYTE] &= ~DISABLE_AUX
            self._mouse.send(value)

    def _output_port(self) -> int:
        value = RESET_HIGH | KEYBOARD_CLOCK_AND_DATA
        if self._a20.enabled:
            value |= A20_PIN
        if self.output_full:
            value |= IRQ12_PIN if self.output_is_aux else IRQ1_PIN
        return value

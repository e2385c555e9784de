"""Guests of a few bytes, a QMP server for one, and a client that reads line by line."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emuvisor.host import Guest, Host
from emuvisor.machine.config import FlatConfig, GuestConfig
from emuvisor.qmp import PlainGuest, QmpServer, Target
from emuvisor.units import MIB

ADDRESS = 0x8000
PATIENCE_S = 20

# Real mode.
SPIN = bytes.fromhex("ebfe")
POWER_OFF = bytes.fromhex("ba0406 b80020 ef f4")  # the PM1a control register: sleep type 0, enable
RESET = bytes.fromhex("b0fe e664 ebfe")  # by the keyboard controller
PANIC = bytes.fromhex("ba0505 b001 ee f4")  # pvpanic
TRIPLE_FAULT = bytes.fromhex("0f011e0090 cc")  # an empty IDT


class Client:
    """The other end of a QMP socket."""

    def __init__(self, address: str) -> None:
        path = address.removeprefix("unix:")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")
        self.events: list[tuple[str, Any]] = []
        self.greeting = self.read()

    def read(self) -> Any:
        """The next message; None at the end."""
        line = self.lines.readline()
        assert not line or line.endswith(b"\r\n")
        return json.loads(line) if line else None

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode() if isinstance(data, str) else data)

    def answer(self) -> Any:
        """The next message that is no event."""
        while True:
            message = self.read()
            if message is None or "event" not in message:
                return message
            self.note(message)

    def note(self, message: dict[str, Any]) -> None:
        assert set(message) <= {"event", "data", "timestamp"}
        assert 0 <= message["timestamp"]["microseconds"] < 1_000_000
        self.events.append((message["event"], message.get("data")))

    def ask(self, name: str, **arguments: Any) -> Any:
        """What a command returns; "class: text" of an error. Underscores in names of arguments are hyphens."""
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self.send(json.dumps({"execute": name, "arguments": named}))
        answer = self.answer()
        if "error" in answer:
            return f"{answer['error']['class']}: {answer['error']['desc']}"
        return answer["return"]

    def human(self, line: str, **arguments: Any) -> Any:
        return self.ask("human-monitor-command", command_line=line, **arguments)

    def await_event(self, name: str) -> Any:
        """The data of the first event of this name that has come, or comes, and is no longer noted."""
        while True:
            for number, (event, data) in enumerate(self.events):
                if event == name:
                    del self.events[number]
                    return data
            message = self.read()
            assert message is not None, name
            self.note(message)

    def negotiate(self) -> "Client":
        assert self.ask("qmp_capabilities") == {}
        return self

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


@dataclass
class Rig:
    """A host whose guests are served in `folder`."""

    host: Host
    folder: Path
    open: list[Any] = field(default_factory=list)

    def guest(self, code: bytes = SPIN, *, start: bool = True, **settings: Any) -> Guest:
        path = self.folder / "code.bin"
        path.write_bytes(code)
        config: dict[str, Any] = {"name": "g", "board": "isa", "memory": MIB} | settings
        guest = self.host.create(GuestConfig(flat=FlatConfig(path, ADDRESS), **config))
        if start:
            guest.start()
        return guest

    def serve(self, target: Target | Guest) -> QmpServer:
        plain = PlainGuest(target) if isinstance(target, Guest) else target
        server = QmpServer(plain, f"unix:{self.folder / 'qmp'}")
        self.open.insert(0, server)
        return server

    def connect(self, server: QmpServer) -> Client:
        client = Client(server.address)
        self.open.insert(0, client)
        return client

    def client(self, target: Target | Guest) -> Client:
        """One that has negotiated."""
        return self.connect(self.serve(target)).negotiate()

    def close(self) -> None:
        for thing in self.open:
            thing.close()


@contextmanager
def make_rig(folder: Path, memory: int = 64 * MIB) -> Iterator[Rig]:
    with Host(memory) as host:
        rig = Rig(host, folder)
        try:
            yield rig
        finally:
            rig.close()

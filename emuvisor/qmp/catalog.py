"""All commands by name."""

from typing import Any

from emuvisor.qmp.commands import block, devices, identity, inputs, migration, objects, power, snapshots
from emuvisor.qmp.human import command
from emuvisor.qmp.monitor import Monitor
from emuvisor.qmp.registry import Registry

__all__ = ["COMMANDS", "NEGOTIATION"]

NEGOTIATION = "qmp_capabilities"
"""The command that a session begins with; it is the session's own."""

COMMANDS = Registry()
for _module in (block, command, devices, identity, inputs, migration, objects, power, snapshots):
    COMMANDS.update(_module.REGISTRY)


@COMMANDS.command("query-commands")
def query_commands(_monitor: Monitor) -> list[dict[str, Any]]:
    """All of them, by name."""
    return [{"name": name} for name in sorted([*COMMANDS, NEGOTIATION])]

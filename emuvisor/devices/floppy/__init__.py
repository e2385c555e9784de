"""A PC's floppy disk controller, and the drives on it.

controller   82077AA: registers, phases, and the commands that move no data
transfer     those that do
commands     its commands: bits and lengths
registers    its registers' bits
drive        a drive: its head, its motor's disk, and the change line
media        which formats there are, by the size of an image
"""

from emuvisor.devices.floppy.controller import FloppyController
from emuvisor.devices.floppy.drive import FloppyDrive

__all__ = ["FloppyController", "FloppyDrive"]

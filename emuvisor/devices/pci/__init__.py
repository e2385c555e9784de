"""PCI: functions with a configuration space, and the bus that they are plugged into.

registers.py         the type 0 header: offsets and bits, by the names of the PCI Local Bus Specification 3.0
bar.py               a base address register and what it shows; option ROMs
function.py          PciFunction: header, BARs, capabilities, INTx, DMA
capabilities/        MSI, MSI-X, power management
pci_bus.py           PciBus: the slots, and which BAR answers at which address
config_mechanism.py  ports CF8h and CFCh
i440fx.py piix3.py piix4_pm.py   the chip set of the pc board
"""

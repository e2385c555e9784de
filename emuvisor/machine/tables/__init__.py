"""What firmware tells an operating system about the machine, made from one description of it.

platform.py      Platform: the description, which boards fill in
aml.py           AML, the bytecode of ACPI's DSDT: names, packages, devices, methods
resources.py     resource descriptors (_CRS, _PRS)
dsdt.py          the DSDT of a platform
acpi.py          RSDP, RSDT, XSDT, FADT, FACS, MADT, HPET
mptable.py       the MultiProcessor table, for kernels without ACPI
smbios.py        SMBIOS: what the machine and its parts are called
table_loader.py  files whose pointers and checksums are filled in when their addresses are known
install.py       the tables at fixed places in memory, or offered to firmware through fw_cfg
"""

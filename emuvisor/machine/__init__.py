"""One guest: its configuration, the board it runs on, and how its programs get into memory.

config       GuestConfig, from Python or TOML
memory_map   where RAM lies, E820
loaders      kernels, flat binaries, firmware
"""

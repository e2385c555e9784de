"""One guest: its configuration, the board it runs on, and how its programs get into memory.

config       GuestConfig, from Python or TOML
machine      Machine: vCPU, memory and board together, run slice by slice
outcome      how a run ended
console      a serial port on the host's side
boards       which chip sits where; the only place that knows addresses
memory_map   where RAM lies, E820
boot         from a configuration to what goes into memory
loaders      kernels, flat binaries, firmware
"""

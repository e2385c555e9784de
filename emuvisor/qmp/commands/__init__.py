"""QMP's commands by subject; `catalog` has them all. Source: QEMU QMP Reference Manual; each module names the part."""

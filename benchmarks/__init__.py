"""emuvisor's benchmarks: `python -m benchmarks` from the checkout; README.md says what each measures.

__main__.py  the command line
harness.py   warm-up, repeats, contenders in turns; what a benchmark is
figures.py   median, spread, ratios, goals
report.py    JSON, a table for the terminal, markdown for docs/performance.md
chart.py     horizontal bars as an SVG picture, for docs/performance.md
curve.py     lines as an SVG picture, by matplotlib
machine.py   which machine the figures come from
process.py   a program that is talked to over pipes, as over a serial line
qemu.py      QEMU as a guest's process
guests.py    emuvisor: as a guest's process, and inside this one
guest_programs.py  programs in C for inside the guest
shell.py     commands in a booted guest, timed from outside
loop.py      a compute loop as machine code
bare_guests.py  guests of a few instructions on a host
page_walk.py a walk over pages as machine code, and a guest that does it
working_set.py  guests that work on more memory than they have, several on one host
workloads/   one benchmark a file
programs/    what runs in a process of its own
"""

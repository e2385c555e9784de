"""Programs that benchmarks start as processes of their own.

console.py       one guest with its console on standard input and output
network.py       guests on a virtual network, the last one's console on standard input and output
bare.py          a compute loop on Unicorn's own Python binding
compute.py       the same loop in an emuvisor guest
many.py          many Debian guests, told what to run over standard input

And in C, compiled for the guest by benchmarks/guest_programs.py:

aio.c            direct I/O to a disk, at a given depth
tcp.c            throughput and round trips of a TCP connection
"""

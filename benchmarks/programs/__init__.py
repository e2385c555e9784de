"""Programs that benchmarks start as processes of their own.

console.py       one guest with its console on standard input and output
bare.py          a compute loop on Unicorn's own Python binding
compute.py       the same loop in an emuvisor guest
many.py          many Debian guests, told what to run over standard input
"""

"""The CPU: the only package that knows Unicorn.

state.py     CpuState, the architectural state of one processor as a typed object
layout.py    CpuState to and from the engine's own form
models.py    CPU models by name: what CPUID answers
exits.py     why a vCPU stopped running
vcpu.py      Vcpu, a guest's processor: state that any pCPU can load
pcpu.py      Pcpu, one engine: runs one vCPU after another
engine.py    finding Unicorn and verifying it
reference/   page walk and event delivery once more, in Python, to explain and to check the core with
core/        the C core (_core): run loop, address translation, event delivery
"""

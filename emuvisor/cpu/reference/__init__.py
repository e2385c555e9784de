"""A model of the page walk and of event delivery, written from the manual to be read.

The C core does the same at full speed; the tests hold it against this model on random tables and descriptors,
and the inspector explains with it what the processor did.

    physical.py       guest physical memory as the model sees it
    paging.py         the page walk, step by step
    faults.py         events, faults raised on the way, double and triple fault
    attempt.py        one attempt to deliver one event: linear memory, the state to go back to
    descriptors.py    segment and gate descriptors
    stack.py          frames pushed on the handler's stack
    events.py         deliver(): puts the rest together
    real_mode.py      the interrupt vector table; INT n redirected in virtual-8086 mode
    protected_mode.py gates of 8 bytes, inner stacks, virtual-8086 mode
    long_mode.py      gates of 16 bytes, IST
    tasks.py          task gates
    system_calls.py   SYSCALL, SYSENTER
    ports.py          the right to use I/O ports
"""

"""Who runs on which pCPU, and for how long.

core.py          the scheduler: events in, instructions out
instructions.py  those events and instructions
claim.py         what a guest is promised: weight, cap, reservation, limit, affinity, latency
admission.py     whether the reservations of all guests can be kept, and which pCPU keeps whose
entity.py        a guest as the scheduler sees it: where it is, what it may use, what it got
affinity.py      guests that the same pCPUs may run, and the queues in which they wait
policy.py        what a policy decides; policies/ has them beside each other
recording.py     who ran where, why it was switched out, who waited; gantt.py draws it
"""

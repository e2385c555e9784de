"""A guest on the virtual clock is interrupted at the same instructions, and does the same work, when the host takes its
memory away all the time: also where it is held up within a block, or by the frame that is pushed for an interrupt."""

import host_guests as guests
import pytest

from emuvisor.host import GuestState, Host
from emuvisor.host.memory.policy import MemoryPolicy
from emuvisor.host.memory.rungs import CompressionRung, PauseRung
from emuvisor.units import KIB, MIB

PATIENCE_S = 120
GUESTS = 4
STORES = "".join(f"inc word ptr es:[di+{offset}];" for offset in range(0, 4000, 100))
SUMS = f"""
    cli; xor ax, ax; mov ds, ax; mov ss, ax; mov sp, 0x7c00
    mov word ptr [0x20], handler; mov word ptr [0x22], 0; mov dword ptr [0x7000], 0
    mov al, 0x11; out 0x20, al; mov al, 8; out 0x21, al; mov al, 4; out 0x21, al; mov al, 1; out 0x21, al
    mov al, 0xfe; out 0x21, al
    mov al, 0x34; out 0x43, al; mov al, 20; out 0x40, al; mov al, 0; out 0x40, al
    sti; mov bp, 20
    pass: mov ax, 0x1000
    page: mov es, ax; xor di, di; {STORES}
    add ax, 0x100; cmp ax, 0x9000; jb page
    dec bp; jnz pass
    cli; mov dx, 0x3f8; mov si, 0x7000; mov cx, 4
    o: lodsb; mov ah, al; shr al, 4; call nibble; mov al, ah; and al, 15; call nibble; loop o
    mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt
    nibble: add al, 0x41; out dx, al; ret
    handler: push ax; push bp; mov bp, sp; mov ax, [bp+4]
    add [0x7000], ax; rol word ptr [0x7000], 1; inc word ptr [0x7002]
    mov al, 0x20; out 0x20, al; pop bp; pop ax; iret
"""
"""Stores to 128 pages; adds up where its timer interrupts it, and prints the sum and how often."""


@pytest.mark.parametrize("pcpus", [1, 2])
def test_the_same_with_little_memory(tmp_path, pcpus):
    make = guests.Maker(tmp_path)

    def run(memory):
        policy = MemoryPolicy(rungs=(CompressionRung(), PauseRung()), period_s=0.02, sampling_s=0.02)
        with Host(memory, pcpus, 200_000, policy, clock="virtual") as host:
            made = [make(host, f"g{number}", SUMS) for number in range(GUESTS)]
            with host.lock:
                for guest in made:
                    guest.start()
                assert host.changed.wait_for(
                    lambda: all(guest.state is GuestState.DEFINED for guest in made), PATIENCE_S
                )
            found = {(guest.console.text, guest.machine.vcpu.work) for guest in made}
            return found, host.memory.log.gained.get("compression", 0)

    expected, _ = run(16 * MIB)
    found, compressed = run(1200 * KIB)
    assert len(expected) == 1
    assert compressed > 100
    assert found == expected

# ring: a multitasking kernel in long mode that checks itself.
#
# Three tasks run the same program in address spaces of their own. They are preempted by the timer in turn, get
# their memory by page faults, call the kernel by SYSCALL and by INT 80h, and do what a task must not do. The
# kernel never runs with interrupts on, so every interrupt comes from ring 3.

.intel_syntax noprefix
.include "flat.inc"
.include "long.inc"
.include "user.inc"
.include "layout.inc"

        flat_start
        enter_long_mode

        # Traps. Breakpoints use a stack of their own, to show that the IST works.
        mov     rbx, offset trap_table
1:      movzx   edi, word ptr [rbx]
        movzx   eax, word ptr [rbx + 2]
        movzx   esi, word ptr [rbx + 4]
        call    set_gate
        add     rbx, TRAP_ENTRY_SIZE
        cmp     rbx, offset trap_table_end
        jb      1b
        mov     rsi, offset syscall_entry
        call    user_init
        mov     qword ptr [tss + TSS_IST1], IST1_TOP
        mov     ecx, MSR_KERNEL_GS
        mov     rax, offset per_cpu
        xor     edx, edx
        wrmsr
        say     "ring: kernel in long mode\n"

        # Frames that all tasks share: the program, and the page that shows them the ticks.
        call    new_frame
        mov     [code_frame], rax
        mov     rdi, rax
        mov     rsi, offset task_begin
        mov     ecx, offset task_end - task_begin
        rep movsb
        call    new_frame
        mov     [tick_frame], rax

        mov     r12, offset tasks
        mov     r13d, 1
2:      call    new_task
        add     r12, TASK_SIZE
        inc     r13d
        cmp     r13d, TASKS
        jbe     2b

        call    check_kernel_faults

        call    pic_init
        mov     ax, PIT_HZ / TICK_HZ
        call    pit_start
        mov     r12, offset tasks
        jmp     resume

.include "kernel.inc"
.include "selfcheck.inc"
        long_library
        user_library
.include "task.inc"

# Gate by gate: vector, gate bits, handler.
.data
trap_table:
        .word   VECTOR_DE, GATE_INTERRUPT64, trap_divide
        .word   VECTOR_BP, GATE_INTERRUPT64 | GATE_USER | IST1, trap_breakpoint
        .word   VECTOR_UD, GATE_INTERRUPT64, trap_opcode
        .word   VECTOR_GP, GATE_INTERRUPT64, trap_protection
        .word   VECTOR_PF, GATE_INTERRUPT64, trap_page
        .word   VECTOR_IRQ0, GATE_INTERRUPT64, trap_timer
        .word   VECTOR_INT80, GATE_INTERRUPT64 | GATE_USER, trap_int80
trap_table_end:

.balign 8
next_frame:
        .quad   FIRST_FRAME
code_frame:
        .quad   0
tick_frame:
        .quad   0
current:
        .quad   0
failures:
        .quad   0
breakpoint_stack:
        .quad   0                       # RSP in the breakpoint handler
per_cpu:
        .quad   0, 0
tasks:  .zero   TASKS * TASK_SIZE

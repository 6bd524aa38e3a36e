; The lab's guest: a machine that boots in a fraction of a second and tells the outside what it lives through.
;
; It beats about five times a second, on its serial port and in a record on its own disk. It counts its boots,
; notices when another copy of itself writes the same disk, powers off when its power button is pressed, and
; obeys a command that is written into its disk from outside. It has no operating system: SeaBIOS does the I/O.
; It may have a guest agent: on its second serial port it answers as qemu-ga does to the few questions that a cluster asks.
;
; The disk, in 512-byte sectors. What is written at run time stands alone in its 4 KiB block, so that whoever reads
; or writes it from outside may use direct I/O on any storage.
;
;     0        this program's first sector; the VM's name, the length of a beat and the agent's times are patched into it
;     1..3     the rest of this program
;     16       the command sector: byte 0 is the command, 0 is none
;     24       the record (see `record` below)
;     32..47   split counters, one sector each: what a copy found wrong, it adds in the sector that its nonce chooses
;
; Why split counters have sectors of their own: two copies that run at once overwrite each other's record. Were the
; counter part of it, each would wipe out what the other had noticed. A counter that nobody ever writes anything but
; a larger number into survives; two copies that happen to choose the same sector may lose a count, never the fact.
;
; Assemble: nasm -f bin guest.asm -o guest.bin

bits 16
org 0x7c00

PROGRAM_SECTORS equ 3           ; sectors 1.. that hold the rest of this program
COMMAND_LBA     equ 16
RECORD_LBA      equ 24
SPLIT_LBA       equ 32
SPLIT_SLOTS     equ 16          ; a power of two
BUFFER          equ 0x9000
LINE            equ 0xa000          ; the question that is being read
LINE_SIZE       equ 1024
COM1            equ 0x3f8
COM2            equ 0x2f8           ; where a guest agent listens
BIOS_TICKS      equ 0x46c       ; 18.2 per second, back to 0 at midnight
PM1_STATUS      equ 0x600       ; where SeaBIOS puts the ACPI registers, on pc as on q35
PM1_ENABLE      equ 0x602
PM1_CONTROL     equ 0x604
POWER_BUTTON    equ 0x0100      ; the same bit in PM1_STATUS and PM1_ENABLE
MAGIC           equ 0x31474c4d  ; "MLG1"

; ---------------------------------------------------------------------------------------------- first sector
entry:
        cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        cld
        sti
        mov     [drive], dl
        mov     ah, 0x42
        mov     si, load_request
        int     0x13
        jc      .stuck
        jmp     main
.stuck: cli
        hlt
        jmp     .stuck

align 4
load_request:
        db      16, 0
        dw      PROGRAM_SECTORS, main, 0
        dq      1
drive:  db      0x80

        times   0x1b0-($-$$) db 0
agent_ticks:                            ; patched: ticks from boot until the guest agent answers; 0: there is none
        dd      0
command_ticks:                          ; patched: ticks from boot until commands that it runs succeed
        dd      0
beat_ticks:                             ; patched: how many timer ticks a beat lasts
        dd      4
        times   0x1c0-($-$$) db 0
name:                                   ; patched: the VM's name, padded with zeros
        db      'unnamed'
        times   0x1e0-($-$$) db 0
        times   0x1fe-($-$$) db 0
        dw      0xaa55

; ------------------------------------------------------------------------------------------------- sectors 1..
main:
        mov     dx, COM1 + 3            ; serial line: 8 bits, no parity
        mov     al, 3
        out     dx, al
        call    open_agent
        mov     dx, PM1_ENABLE
        mov     ax, POWER_BUTTON
        out     dx, ax

        mov     al, RECORD_LBA          ; take over the counters of the boots before this one
        call    read_sector
        cmp     dword [BUFFER], MAGIC
        jne     .first_boot
        mov     si, BUFFER
        mov     di, record
        mov     cx, record.end - record
        rep     movsb
.first_boot:
        mov     dword [record.beats], 0
        mov     dword [record.answers], 0
        inc     dword [record.boots]
        mov     si, name
        mov     di, record.name
        mov     cx, 32
        rep     movsb
        rdtsc                           ; the nonce tells this running copy from every other
        xor     eax, [BIOS_TICKS]
        mov     [record.nonce], eax
        mov     si, text.boot
        call    report
        jmp     beat                    ; a foreign nonce is no split yet: it is the boot before this one

next:
        mov     al, COMMAND_LBA
        call    read_sector
        jc      .no_command
        mov     al, [BUFFER]
        mov     [command], al
        cmp     al, 'H'
        je      hang
        cmp     al, 'R'
        je      reset
        cmp     al, 'O'
        je      power_off_on_command
        cmp     al, 'P'
        je      panic
        cmp     al, 'W'
        jne     .no_command
        mov     dx, 0x443               ; ib700 watchdog: (15 - 14) * 2 = 2 s until it must be petted again
        mov     al, 14
        out     dx, al
.no_command:
        mov     al, RECORD_LBA          ; has anybody else written our record since our last beat?
        call    read_sector
        jc      beat
        mov     eax, [BUFFER + (record.nonce - record)]
        cmp     eax, [record.nonce]
        je      beat
        call    note_split
beat:
        inc     dword [record.beats]
        call    write_record
        mov     si, text.beat
        call    report
        mov     ebx, [BIOS_TICKS]
.wait:
        hlt
        call    poll_power_button
        call    poll_agent
        mov     eax, [BIOS_TICKS]
        sub     eax, ebx                ; at midnight this is huge: one short beat, no endless wait
        cmp     eax, [beat_ticks]
        jb      .wait
        jmp     next

; Looks at the power button; returns unless it was pressed and we are to obey it.
poll_power_button:
        mov     dx, PM1_STATUS
        in      ax, dx
        test    ax, POWER_BUTTON
        jz      .done
        mov     ax, POWER_BUTTON        ; writing the bit clears it
        out     dx, ax
        inc     dword [record.buttons]
        cmp     byte [command], 'I'
        jne     power_off
        mov     si, text.ignored
        call    report
.done:  ret

power_off_on_command:
        call    clear_command
power_off:
        inc     dword [record.offs]
        call    write_record
        mov     si, text.off
        call    report
        mov     dx, PM1_CONTROL
        mov     ax, 0x2000              ; SLP_EN with sleep type 0, which is S5 here
        out     dx, ax
        jmp     halt

; Commands that end this boot are taken back first, or the next boot would obey them again.
hang:
        call    clear_command
        mov     si, text.hang
        call    report
halt:   cli
        hlt
        jmp     halt

reset:
        call    clear_command
        inc     dword [record.resets]
        call    write_record
        mov     si, text.reset
        call    report
        mov     al, 0xfe                ; the keyboard controller's reset line ...
        out     0x64, al
        mov     dx, 0xcf9               ; ... and the chipset's, should there be no such controller
        mov     al, 6
        out     dx, al
        jmp     halt

panic:
        call    clear_command
        mov     si, text.panic
        call    report
        mov     dx, 0x505               ; pvpanic
        mov     al, 1
        out     dx, al
        jmp     halt

clear_command:
        mov     byte [command], 0
        mov     di, BUFFER
        mov     cx, 512
        xor     al, al
        rep     stosb
        mov     al, COMMAND_LBA
        jmp     write_sector

; Adds one to the split counter that our nonce chooses.
note_split:
        mov     al, [record.nonce]
        and     al, SPLIT_SLOTS - 1
        add     al, SPLIT_LBA
        push    ax
        call    read_sector
        pop     ax
        jc      .say                    ; a counter that can't be read is not overwritten
        inc     dword [BUFFER]
        call    write_sector
.say:   mov     si, text.split
        jmp     report

write_record:
        mov     si, record
        mov     di, BUFFER
        mov     cx, record.end - record
        rep     movsb
        mov     cx, 512 - (record.end - record)
        xor     al, al
        rep     stosb
        mov     al, RECORD_LBA
        ; falls through
; Sector AL to or from BUFFER; carry: it failed.
write_sector:
        mov     ah, 0x43
        jmp     transfer
read_sector:
        mov     ah, 0x42
transfer:
        mov     [request.lba], al
        xor     al, al
        mov     dl, [drive]
        mov     si, request
        int     0x13
        jnc     .done
        inc     dword [record.io_errors]
        mov     si, text.io_error
        call    report
        stc
.done:  ret

; ------------------------------------------------------------------------------------------------------ serial
; One line: the word at SI, the VM's name, boots, beats.
report:
        call    print
        mov     si, name
        call    print
        mov     eax, [record.boots]
        call    print_number
        mov     eax, [record.beats]
        call    print_number
        mov     al, 10
        jmp     print_char

print_number:                           ; a blank, then EAX in decimal
        push    eax
        mov     al, ' '
        call    print_char
        pop     eax
        xor     cx, cx
        mov     edi, 10
.digit: xor     edx, edx
        div     edi
        push    dx
        inc     cx
        test    eax, eax
        jnz     .digit
.out:   pop     ax
        add     al, '0'
        call    print_char
        loop    .out
        ret

print:  lodsb
        test    al, al
        jz      .done
        call    print_char
        jmp     print
.done:  ret

print_char:
        push    dx
        push    ax
        mov     dx, [port]
        add     dx, 5
.busy:  in      al, dx
        test    al, 0x20
        jz      .busy
        pop     ax
        mov     dx, [port]
        out     dx, al
        pop     dx
        ret

; ------------------------------------------------------------------------------------------------- guest agent
; The second serial port, if we are to have an agent. Without one the port is never touched: it may not exist.
open_agent:
        mov     eax, [BIOS_TICKS]
        mov     [last_tick], eax
        cmp     dword [agent_ticks], 0
        je      .none
        mov     dx, COM2 + 3            ; 8 bits, no parity
        mov     al, 3
        out     dx, al
        mov     dx, COM2 + 2            ; with queues, emptied now
        mov     al, 0xc7
        out     dx, al
        mov     word [0x0b * 4], .woken ; what comes there ends our halt: IRQ 3
        mov     word [0x0b * 4 + 2], 0
        mov     dx, COM2 + 1
        mov     al, 1
        out     dx, al
        mov     dx, COM2 + 4            ; ready to talk
        mov     al, 0x0b
        out     dx, al
        in      al, 0x21
        and     al, 0xf7
        out     0x21, al
.none:  ret
.woken: push    ax
        mov     al, 0x20
        out     0x20, al
        pop     ax
        iret

; Reads what has come, and answers each whole line. The rest of a line wakes us again when it comes.
poll_agent:
        cmp     dword [agent_ticks], 0
        je      .none
        pushad
        mov     eax, [BIOS_TICKS]
        mov     ecx, eax
        sub     ecx, [last_tick]
        jnc     .older
        mov     ecx, 1                  ; at midnight they begin anew
.older: add     [age], ecx
        mov     [last_tick], eax
.next:  mov     dx, COM2 + 5
        in      al, dx
        cmp     al, 0xff
        je      .done                   ; no such port: we were started by somebody else
        test    al, 1
        jnz     .byte
.done:  popad
.none:  ret
.byte:  mov     dx, COM2
        in      al, dx
        cmp     al, 0xff                ; a new question begins, whatever came before
        je      .fresh
        cmp     al, 10
        je      .line
        mov     bx, [line_end]
        cmp     bx, LINE + LINE_SIZE - 1
        jae     .next                   ; longer than any question that we know: the rest is dropped
        mov     [bx], al
        inc     word [line_end]
        jmp     .next
.line:  mov     bx, [line_end]
        mov     byte [bx], 0
        call    answer
.fresh: mov     word [line_end], LINE
        jmp     .next

; Answers the question at LINE. While it is to be silent, the question is lost, as with a guest whose agent does not run.
answer:
        mov     eax, [age]
        cmp     eax, [agent_ticks]
        jb      .silent
        cmp     byte [command], 'S'
        je      .silent
        inc     dword [record.answers]
        mov     word [port], COM2
        mov     di, LINE
        mov     si, key.execute
        call    find
        jc      .unknown
        mov     bx, questions
.try:   mov     si, [bx]
        call    begins
        jnc     .known
        add     bx, 4
        cmp     bx, questions.end
        jb      .try
.unknown:
        mov     si, reply.unknown
        call    print
        jmp     .said
.known: call    [bx + 2]
.said:  mov     word [port], COM1
        cmp     dword [record.answers], 1
        je      write_record            ; at once: whoever watches learns of the first answer before anything comes of it
.silent:
        ret

answer_sync_delimited:
        mov     al, 0xff
        call    print_char
answer_sync:
        mov     si, reply.value
        call    print
        mov     di, LINE
        mov     si, key.id
        call    find
        jc      .end
        mov     si, di
.digit: lodsb
        cmp     al, '0'
        jb      .end
        cmp     al, '9'
        ja      .end
        call    print_char
        jmp     .digit
.end:   mov     si, reply.end
        jmp     print

answer_ping:
        mov     si, reply.nothing
        jmp     print

answer_exec:
        mov     si, reply.process
        call    print
        mov     word [port], COM1
        mov     si, text.exec
        jmp     report

answer_exec_status:
        mov     si, reply.failed
        mov     eax, [age]
        cmp     eax, [command_ticks]
        jb      .say
        mov     si, reply.succeeded
.say:   jmp     print

; Whether the text at DI begins with the one at SI: then DI is behind it. Otherwise carry, and DI is as it was.
begins:
        push    di
.next:  lodsb
        test    al, al
        jz      .all
        cmp     al, [di]
        jne     .not
        inc     di
        jmp     .next
.all:   pop     ax
        clc
        ret
.not:   pop     di
        stc
        ret

; Looks for the text at SI from DI on: then DI is behind it and the blanks that follow. Otherwise carry.
find:   push    si
        call    begins
        pop     si
        jnc     .blank
        inc     di
        cmp     byte [di - 1], 0
        jne     find
        stc
        ret
.skip:  inc     di
.blank: cmp     byte [di], ' '
        je      .skip
        clc
        ret

; -------------------------------------------------------------------------------------------------------- data
key:
.execute:       db '"execute":', 0
.id:            db '"id":', 0
.sync:          db '"guest-sync"', 0
.delimited:     db '"guest-sync-delimited"', 0
.ping:          db '"guest-ping"', 0
.exec:          db '"guest-exec"', 0
.exec_status:   db '"guest-exec-status"', 0

questions:
                dw key.sync, answer_sync
                dw key.delimited, answer_sync_delimited
                dw key.ping, answer_ping
                dw key.exec, answer_exec
                dw key.exec_status, answer_exec_status
.end:

reply:
.value:         db '{"return": ', 0
.end:           db '}', 10, 0
.nothing:       db '{"return": {}}', 10, 0
.process:       db '{"return": {"pid": 1}}', 10, 0
.failed:        db '{"return": {"exited": true, "exitcode": 1}}', 10, 0
.succeeded:     db '{"return": {"exited": true, "exitcode": 0}}', 10, 0
.unknown:       db '{"error": {"class": "CommandNotFound", "desc": "The command has not been found"}}', 10, 0

text:
.boot:          db 'BOOT ', 0
.beat:          db 'BEAT ', 0
.split:         db 'SPLIT ', 0
.off:           db 'OFF ', 0
.ignored:       db 'IGNORED ', 0
.hang:          db 'HANG ', 0
.reset:         db 'RESET ', 0
.panic:         db 'PANIC ', 0
.io_error:      db 'IOERR ', 0
.exec:          db 'EXEC ', 0
command:        db 0

align 4
port:           dw COM1                 ; where text goes
line_end:       dw LINE
last_tick:      dd 0
age:            dd 0                    ; ticks since this boot
request:        db 16, 0
                dw 1, BUFFER, 0
.lba:           dq 0

; The record as it is on the disk: 32-bit little-endian numbers. `guest.rs` reads it.
record:
                dd MAGIC
.boots:         dd 0                    ; how often this disk was booted
.beats:         dd 0                    ; beats of this boot
.nonce:         dd 0                    ; which running copy wrote this
.offs:          dd 0                    ; power-offs that the guest itself carried out
.resets:        dd 0                    ; resets by command
.buttons:       dd 0                    ; presses of the power button that it saw
.io_errors:     dd 0
.name:          times 32 db 0
.answers:       dd 0                    ; answers of the guest agent in this boot, as of the last beat or the first answer
.end:

        times   512 * (1 + PROGRAM_SECTORS) - ($-$$) db 0   ; negative, hence an error, when the program is too long

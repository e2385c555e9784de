"""The command `emuvisor`. Nothing heavy is imported before a command needs it.

entry.py     the parser, and how errors become messages and exit codes
demo.py      `emuvisor demo`;   workloads.py: its guests, shows.py: its screens
run.py       `emuvisor run`;    guests.py: options to configurations, session.py: from start to result,
             keyboard.py, terminal.py, screen.py: typing and printing, results.py: exit codes and JSON
create.py    `emuvisor create`; lifecycle.py: `start` to `set`, guest_list.py: `ls`, `info`,
             guest_console.py: `console`, `logs`, `events`, guest_snapshots.py: `snapshot` to `clone`,
             guest_moves.py: `export` to `receive`; connect.py: the daemon's guests or the store's,
             attach.py: a console on this terminal
images.py    `emuvisor images`
disk.py      `emuvisor disk`; disk_files.py, disk_convert.py, disk_info.py: its actions,
             transfer.py: their progress
store.py     `emuvisor store`
serve.py     `emuvisor serve`; serve_log.py: what it says
doctor.py    `emuvisor doctor`; checks.py: what it looks at
tables.py    a table for a terminal or for a file
"""

from emuvisor.cli.entry import main

__all__ = ["main"]

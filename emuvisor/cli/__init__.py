"""The command `emuvisor`. Nothing heavy is imported before a command needs it.

entry.py     the parser, and how errors become messages and exit codes
demo.py      `emuvisor demo`;   workloads.py: its guests, shows.py: its screens
run.py       `emuvisor run`;    guests.py: options to configurations, session.py: from start to result,
             keyboard.py, terminal.py, screen.py: typing and printing, results.py: exit codes and JSON
images.py    `emuvisor images`
disk.py      `emuvisor disk`; disk_files.py, disk_convert.py, disk_info.py: its actions,
             transfer.py: their progress
store.py     `emuvisor store`
doctor.py    `emuvisor doctor`; checks.py: what it looks at
tables.py    a table for a terminal or for a file
"""

from emuvisor.cli.entry import main

__all__ = ["main"]

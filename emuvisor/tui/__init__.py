"""The live dashboard of `emuvisor top`, on textual.

source.py       Source: where the numbers come from, and who carries out what people ask for
local.py        LocalSource: guests of a host in this process
history.py      History: the last rates, for sparklines
bars.py         sparklines, bars and short numbers
console_text.py what a guest printed, as lines that are safe to show
plain.py        names from elsewhere, safe to show
keys.py         keys as the bytes that a terminal sends
views.py        numbers as text: the panels' contents
dashboard.py    Dashboard: the app
overview.py     Overview: its main screen
dialogs.py      the question for a weight or a cap
pictures.py     screenshots as files
console.py      a guest's console, full screen
"""

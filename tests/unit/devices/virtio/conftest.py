"""Its folder is on the path of every test below: `from driver import Driver`."""

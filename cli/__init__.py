"""The command line: a farm on one machine, and a client of any farm."""

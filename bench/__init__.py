"""Each figure the project quotes, with the command that repeats it."""

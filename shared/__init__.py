"""What every process of the farm agrees on: its words, its machinery, its job protocol."""

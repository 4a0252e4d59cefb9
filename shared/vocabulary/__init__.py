"""Pure values: no clock, no environment, no database, no torch."""

"""Handles on the outside: settings, logs, Postgres, Redis, the result store."""

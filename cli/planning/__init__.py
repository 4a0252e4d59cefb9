"""Chooses groups and layouts for a machine: pure functions over its GPUs and what was measured."""

"""Miniatures of Wan2.2: the real classes and layout at a size that a laptop renders."""

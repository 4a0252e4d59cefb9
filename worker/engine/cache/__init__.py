"""The block cache: when the middle of a transformer may be skipped, and what stands in for it."""

"""The parts of a model: read from disk, placed in memory, adapted for a job."""

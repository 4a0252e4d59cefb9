"""From a complete spec to an H.264 file: torch and diffusers, and nothing of the farm."""

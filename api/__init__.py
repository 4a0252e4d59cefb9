"""The HTTP side of the farm: JSON under /v1, pages under /. Knows shared, and no worker."""

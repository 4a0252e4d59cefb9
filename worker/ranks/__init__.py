"""N processes that compute one video together, and the parent's handle on them."""

"""How rows go through networks: in chunks that fit a cache, as many as fit a memory, in which precision."""

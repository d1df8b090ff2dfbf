"""Tree search, and search at one node for simultaneous moves."""

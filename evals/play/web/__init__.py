"""Playing in a browser: a server for one machine or a local network, and the page it serves."""

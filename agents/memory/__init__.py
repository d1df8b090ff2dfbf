"""Memory: replay buffers and the sum tree that prioritised ones draw from."""

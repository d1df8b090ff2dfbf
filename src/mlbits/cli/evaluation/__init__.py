"""Commands that measure how well something plays, or repeat a result."""

"""Commands about runs that are there: their curves, settings and files."""

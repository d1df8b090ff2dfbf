"""Commands that make and describe datasets."""

"""Runs that learn from a dataset: the session, the dataset by its name, and the record of policies tried online."""

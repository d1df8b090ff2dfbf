"""The core that every game stands on: rules, randomness, drivers, batches, doors, the registry."""

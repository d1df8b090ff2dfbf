"""Commands that train: a run, a rule, many trials; and the one that goes on with a run."""

"""Reproductions about what is learned of learning: update rules, discovered drifts, step sizes and regularisers."""

"""The catalogue of balancing strategies: one file a strategy, found by its name."""

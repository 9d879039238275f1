"""The record under load and under kill -9: `python -m benchmarks.stats`."""

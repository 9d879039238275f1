"""Benchmarks: each `python -m benchmarks.NAME` measures one part of the goals and says which are met."""

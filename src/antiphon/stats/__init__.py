"""The record as tables: written by one recorder, read by analysts; the only package that imports DuckDB."""

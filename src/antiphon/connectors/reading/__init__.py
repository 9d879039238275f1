"""Readers: pure functions that turn the text of a file into titles and sections; no connector is in this folder."""

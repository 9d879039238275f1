"""Decisions: pure functions and frozen states, with no clock, no network and no asyncio."""

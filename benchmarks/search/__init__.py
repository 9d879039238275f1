"""How fast a search is, end to end through the bus, against what one would write by hand in the same run."""

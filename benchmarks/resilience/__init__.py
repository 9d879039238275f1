"""GOALS.md's numbers of resilience: decisions in virtual time on a `TestFleet`, time with real processes."""

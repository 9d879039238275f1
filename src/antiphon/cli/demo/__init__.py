"""The demo: a whole fabric on one machine, over content that every machine has; see `commands/demo.py`."""

"""Keys, tokens and the auth callout's codec: the only package that touches cryptography.

Its face are its modules, each usable alone, imported when they are first used: a client that reads its credential file
does not pay for what masters need.
"""

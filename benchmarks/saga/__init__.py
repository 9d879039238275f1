"""How fast sagas are, and what becomes of them while everything is killed."""

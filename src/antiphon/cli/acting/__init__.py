"""What `antiphon action` does, one module a verb."""

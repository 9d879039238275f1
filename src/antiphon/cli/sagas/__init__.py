"""What `antiphon saga` does, one module a verb or a few that are alike."""

"""What the verbs of `antiphon identity`, `key`, `login`, `whoami` and `doctor` do."""

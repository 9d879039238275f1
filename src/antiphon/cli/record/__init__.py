"""What `antiphon sql`, `antiphon stats` and `antiphon requests` do: ask the record, and show what it says."""

"""What operators do with nodes: one file a few verbs of `antiphon node`, and what they share."""

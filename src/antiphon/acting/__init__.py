"""Actions on the node author's side: how one is declared, what its handler is told, how it runs."""

"""The quality of a fused list against one central BM25 index over all documents."""

"""Real processes that are killed, frozen and started again under load, and the laws that every answer keeps."""

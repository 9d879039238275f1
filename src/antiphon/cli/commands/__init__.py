"""The commands: each module has one `command`, an `App` of its own name; adding a command is adding a file."""

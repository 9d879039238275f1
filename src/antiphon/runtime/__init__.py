"""The machinery that actors run on: mailboxes, conversations, views, supervision and discovery."""

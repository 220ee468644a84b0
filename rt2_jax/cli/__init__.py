"""The `rt2` command: thin, lazily imported, no logic of its own."""

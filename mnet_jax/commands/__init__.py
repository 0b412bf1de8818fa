"""The `mnet` command: one file a subcommand."""

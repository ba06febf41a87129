"""The command line: one file a command group; `main.main` is the entry point."""

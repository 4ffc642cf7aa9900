"""The subcommands of ``port``, one module each, imported when they are called."""

"""The command line: a module per command, each from flags to one library call."""

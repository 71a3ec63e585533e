"""The command line: a module for each command, which turns flags into one library call."""

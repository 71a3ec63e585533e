"""The work of each command, in a module of its name: from a dataclass of options to what the user asked for."""

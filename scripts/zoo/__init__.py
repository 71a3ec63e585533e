"""The nets in models/ that are written by a program; ``python -m scripts.zoo`` writes them."""

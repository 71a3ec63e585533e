"""Programs for the developers of caffecli, and the tutorials' scripts."""

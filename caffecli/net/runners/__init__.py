"""Ways to run a net, behind one interface: ``base.Runner``."""

"""Training: the loop, the learning rate, the update rules, snapshots, signals."""

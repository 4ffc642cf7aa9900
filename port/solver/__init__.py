"""Caffe's solver: rates, update rules, the training loop, snapshots and the log."""

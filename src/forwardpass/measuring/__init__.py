"""Measuring: the clock, this machine and its limits, memory, and what batches cost."""

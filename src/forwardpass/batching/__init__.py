"""Pure policy: which rows go together, where windows and shards end, and what waits for what.

No torch, no threads, no clock: the same rows, times and CostTable give the same batches.
"""

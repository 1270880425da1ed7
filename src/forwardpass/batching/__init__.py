"""Pure policy: which rows go together, and where windows and shards end.

No torch, no threads, no clock: the same rows and the same CostTable give the same batches.
"""

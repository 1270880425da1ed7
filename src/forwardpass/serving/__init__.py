"""Requests → batches → executor → replies.

Three kinds of process. The supervisor (standard library alone) holds the listening socket, starts
and replaces the others, and drains. The HTTP process (no torch, no user code) owns connections,
queue, deadlines, admission and policy, and keeps what was asked until it is answered. One engine
process a model encodes, computes and decodes.
"""

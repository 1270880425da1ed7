"""Profiling: Forward + inputs → Profile: curves, layers, roofline, memory."""

from forwardpass.profiling.verb import profile as profile

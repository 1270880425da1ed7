"""Profiling: Forward + inputs → Profile: curves, layers, roofline, memory."""

from forwardpass.profiling.machines import machine_limits as machine_limits
from forwardpass.profiling.verb import profile as profile

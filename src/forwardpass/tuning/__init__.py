"""Tuning: candidates → Trials → Tuning: the fastest pass that keeps its accuracy."""

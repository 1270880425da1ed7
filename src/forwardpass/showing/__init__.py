"""Nouns → terminal and notebook."""

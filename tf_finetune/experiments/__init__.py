"""Runs, seen from their folders: reports and comparisons."""

"""Families made of families: trials, the task observed, any Gymnasium constructor."""

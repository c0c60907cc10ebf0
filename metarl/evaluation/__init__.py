"""Adaptation curves: measured, kept, merged over seeds and compared."""

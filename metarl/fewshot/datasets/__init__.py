"""Data sets for few-shot learning."""

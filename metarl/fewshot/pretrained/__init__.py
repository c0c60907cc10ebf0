"""Encoders that somebody else has trained: loaded safely, frozen, their features remembered on disk."""

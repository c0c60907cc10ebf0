"""A package of the user's own, beside the clone."""

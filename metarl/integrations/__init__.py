"""Other people's libraries, behind our contracts."""

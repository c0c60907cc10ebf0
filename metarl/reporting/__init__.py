"""Curves and runs shown: tables, figures, films and a page."""

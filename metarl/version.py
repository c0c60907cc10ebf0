"""The version of what is installed."""

from importlib.metadata import PackageNotFoundError, version

DISTRIBUTION = "metarl-suite"  # what pip installs; it imports as metarl

try:
    __version__ = version(DISTRIBUTION)
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"

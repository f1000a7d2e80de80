"""The version of the distribution, read by the build backend and sent in `hello`."""

__version__ = "0.1.0"

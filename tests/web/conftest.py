"""The fixtures of the functions serve the assembly that they share."""

from tests.functions.conftest import event_loops, log, log_lines, serve

__all__ = ["event_loops", "log", "log_lines", "serve"]

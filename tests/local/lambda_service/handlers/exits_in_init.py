"""Leaves while it loads."""

import os

os._exit(7)

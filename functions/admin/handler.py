"""Entry point of the admin API: everything that happens at import time happens here."""

import os

from functions.admin.bootstrap import build

handler = build(os.environ)

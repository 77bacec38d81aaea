"""Entry point of the authorizer: everything that happens at import time happens here."""

import os

from functions.authorizer.bootstrap import build

handler = build(os.environ)

"""Entry point of the sender of webhooks: everything that happens at import time happens here."""

import os

from functions.webhook_sender.bootstrap import build

handler = build(os.environ)

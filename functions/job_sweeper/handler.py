"""Entry point of the sweeper of jobs: everything that happens at import time happens here."""

import os

from functions.job_sweeper.bootstrap import build

handler = build(os.environ)

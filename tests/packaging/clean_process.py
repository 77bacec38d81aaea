"""A staged function in a clean process: its artefacts on the path, what Lambda has behind them, and nothing else."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.packaging.interpreter import Interpreter
from tests.packaging.conftest import Unpacked

# Not -E with PYTHONPATH: nothing of this machine but the standard library may be found.
ISOLATED = ("-I", "-S", "-B", "-W", "error")

PATH = "import json, sys; sys.path[:0] = json.loads(sys.argv.pop(1)); "

_CALL = f"""{PATH}
import time
from importlib import import_module
from awslambdaric.lambda_context import LambdaContext
module, name = sys.argv[1].rsplit(".", 1)
handler = getattr(import_module(module), name)
deadline_ms = int((time.time() + 60) * 1000)
answers = [
    handler(event, LambdaContext("request", None, None, deadline_ms, "arn"))
    for event in json.load(sys.stdin)
]
loaded = {{name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}}
cached = {{name: getattr(module, "__cached__", None) for name, module in list(sys.modules.items())}}
with open(sys.argv[2], "w") as out:
    json.dump({{"answers": answers, "loaded": loaded, "cached": cached, "library": sys.base_prefix}}, out)
"""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a function answered; the files of its modules and their bytecode; where the standard library is."""

    answers: list[Any]
    loaded: Mapping[str, str]
    cached: Mapping[str, str]
    library: str


def run(interpreter: Interpreter, function: Unpacked, events: Sequence[Mapping[str, Any]], folder: Path) -> Ran:
    """Import the handler and give it the events."""
    out = folder / "out.json"
    path = json.dumps([str(part) for part in function.search_path])
    done = subprocess.run(
        [interpreter.path, *ISOLATED, "-c", _CALL, path, function.spec.handler, str(out)],
        input=json.dumps(events),
        env=function.environment,
        cwd=function.task,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    files = {name: file for name, file in document["loaded"].items() if file}
    cached = {name: file for name, file in document["cached"].items() if file}
    return Ran(document["answers"], files, cached, document["library"])

"""Many lives of one training: a process that has imported what a training needs, and forks for each life.

A life is a process of its own that dies of a real SIGKILL; only the seconds of `import torch` are spared. The server
itself never trains, so no life inherits a random state, a cache or a thread of another.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from safetensors import safe_open

from tunesmith.train import state

PATIENCE_S = 300.0  # for one life to get one step further; a machine that does much else is slow


class Lives:
    """The test's side. `begin` starts a life, `kill` and `finish` end it and give its exit code."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.train.lives"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def __enter__(self) -> Lives:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()  # its end: a life that is left is killed
        self._server.wait(timeout=60)

    def begin(self, **facts: Any) -> None:
        self._say(facts)

    def kill(self) -> int:
        return self._end("kill")

    def finish(self) -> int:
        return self._end("finish")

    def _end(self, how: str) -> int:
        assert self._server.stdout is not None
        self._say(how)
        return int(json.loads(self._server.stdout.readline()))

    def _say(self, what: object) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(what) + "\n")
        self._server.stdin.flush()


def saved_step(root: Path) -> int:
    """The step of the state on disk; -1 where there is none. The file is whole at any moment, or this raises."""
    path = root / "state" / state.FILE
    if not path.exists():
        return -1
    with safe_open(path, "pt") as f:
        return int(json.loads(f.metadata()["position"])["step"])


def wait_for_a_step_after(root: Path, step: int) -> None:
    path, end = root / "state" / state.FILE, time.monotonic() + PATIENCE_S
    seen = path.stat().st_mtime_ns if path.exists() else 0
    while not path.exists() or path.stat().st_mtime_ns == seen or saved_step(root) <= step:
        assert time.monotonic() < end, f"no state after step {step}: the life ended or hangs"
        time.sleep(0.004)


def serve() -> None:
    import peft.tuners.lora.bnb  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    from tests.train import test_killed
    from tunesmith.model.methods import bottleneck, full, ia3, lora, prompts, qlora  # noqa: F401
    from tunesmith.text.render import Renderer
    from tunesmith.train.recipes import sft  # noqa: F401

    gc.freeze()  # what was imported stays one copy in all lives
    for line in sys.stdin:
        facts = json.loads(line)
        Renderer.load(Path(facts["base"]), system="")  # tries the template in a process of its own, once
        life = os.fork()
        if not life:
            code = 1
            try:
                shutil.rmtree(Path(facts["root"]) / "out", ignore_errors=True)  # as the ledger does before each start
                test_killed.live(**facts)
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        how = sys.stdin.readline()
        if "finish" not in how:
            os.kill(life, signal.SIGKILL)  # not reaped yet: the number is still its own, dead or alive
        print(os.waitstatus_to_exitcode(os.waitpid(life, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()

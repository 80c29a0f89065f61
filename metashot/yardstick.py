"""A yardstick: another program that does the same work, timed in turn with ours."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "torch_yardsticks.py"
DEVICES = {"cpu": "cpu", "gpu": "cuda"}  # JAX's platforms in PyTorch's words
_ASK = "import torch; print(torch.__version__, torch.cuda.is_available())"


def torch_yardsticks(python: str, platform: str) -> tuple[list[str], str]:
    """The command of the PyTorch yardsticks on a platform of JAX, and the version of PyTorch.

    Args:
        python: an interpreter that has PyTorch.

    Raises:
        ValueError: no such interpreter, no PyTorch in it for the platform, or no yardsticks.
    """
    remedy = "name a Python that has PyTorch (pip install torch)"
    try:
        asked = subprocess.run([python, "-c", _ASK], capture_output=True, text=True)
    except OSError as error:
        raise ValueError(f"{python} cannot be run ({error.strerror}); {remedy}") from error
    if asked.returncode:
        raise ValueError(f"{python} cannot import torch ({_last_line(asked.stderr)}); {remedy}")
    version, sees_gpu = asked.stdout.split()[-2:]
    if platform not in DEVICES or (platform == "gpu" and sees_gpu != "True"):
        raise ValueError(f"PyTorch {version} of {python} does not run on this {platform}; {remedy}")
    if not SCRIPT.exists():
        raise ValueError(f"there is no {SCRIPT}; run from a checkout to compare with PyTorch")
    return [python, str(SCRIPT), f"--device={DEVICES[platform]}"], version


@contextmanager
def running(command: Sequence[str]) -> Iterator[Callable[[int], float]]:
    """Start a yardstick and wait until it is warm; gives steps -> seconds that they took.

    The program prints a line when it is ready, then for each number on its stdin does so many
    steps and prints {"seconds": ...}. It is stopped at the end, whatever happens.

    Raises:
        ChildProcessError: it stopped by itself; its last words are told.
    """
    with tempfile.TemporaryFile("w+") as words:
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": words}
        process = subprocess.Popen(command, **pipes, text=True, bufsize=1)
        ask, told = process.stdin, process.stdout
        assert ask is not None
        assert told is not None

        def answer() -> dict[str, Any]:
            line = told.readline()
            if line:
                return json.loads(line)
            code = process.wait()
            words.seek(0)
            raise ChildProcessError(
                f"{Path(command[1]).name} stopped with exit code {code}: {_last_line(words.read())}"
            )

        def seconds(steps: int) -> float:
            with suppress(BrokenPipeError):  # `answer` says why
                ask.write(f"{steps}\n")
            return answer()["seconds"]

        try:
            answer()
            yield seconds
        finally:
            process.kill()
            process.wait()
            told.close()
            with suppress(BrokenPipeError):
                ask.close()


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"

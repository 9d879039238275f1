"""What this machine knows of a process: whether it lives, its command line, and how to tie one to this process.

A pid alone proves nothing, because pids are used again: whoever ends a process by a remembered pid first compares
its command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final

PS_TIMEOUT_S: Final = 5.0
"""`ps` reads a table of the kernel; longer than this and the machine has other troubles."""

# prctl(1) is PR_SET_PDEATHSIG. A parent that dies before the call is noticed by the changed parent pid.
_TIE: Final = (
    "import ctypes, os, sys; "
    "ctypes.CDLL(None).prctl(1, 15); "
    "os.getppid() == int(sys.argv[1]) or sys.exit(1); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def is_alive(pid: int) -> bool:
    """Whether a process with this pid exists; another user's counts, a zombie counts too."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def command_line(pid: int) -> tuple[str, ...]:
    """Return the arguments of a running process, from /proc or else from `ps`; empty for none and for a zombie.

    `ps` does not say where an argument ends, so there the whole line is one argument.
    """
    if Path("/proc/self/cmdline").exists():
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return ()
        return tuple(os.fsdecode(part) for part in raw.split(b"\0") if part)
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and a number
            ["ps", "-ww", "-p", str(int(pid)), "-o", "command="],  # noqa: S607 - ps is where the system has it
            capture_output=True,
            text=True,
            timeout=PS_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    line = done.stdout.strip()
    return (line,) if line else ()


def tied(command: list[str]) -> list[str]:
    """Return the command wrapped so that on Linux the kernel ends it (SIGTERM) when this process dies.

    The wrapper is a bare Python that calls prctl and then becomes the command, so the pid is the command's own.
    `preexec_fn` would do without it, but may deadlock in a process with threads. The kernel watches the *thread*
    that started the child, so anywhere but in the main thread the command is returned as it is.
    """
    interpreter = Path(sys.executable or "")
    usable = sys.platform == "linux" and interpreter.name.startswith("python")
    if not usable or threading.current_thread() is not threading.main_thread():
        return command
    return [str(interpreter), "-I", "-S", "-c", _TIE, str(os.getpid()), *command]

"""What tritonserver and the processes of its models do not do for each other: where one dies, the other ends.

tritonserver 2.51 never starts a model's process again, says that it is ready, and fails every request to the model for ever;
whoever runs the server does start that again. A model's process whose server was killed may wait for ever for an answer, or for
a lock that the server held, and keep its memory.
"""

import os
import signal
import subprocess
from pathlib import Path

# The first part waits for the server, looking every second; the second reads until the model's process has closed its end, by
# dying. A number may have become another process's meanwhile: what is ended has to have the right name.
_SCRIPT = """
ended() { [ "$(cat /proc/$1/comm 2>/dev/null)" = "$2" ] && kill -"$3" "$1"; }
{ tail --pid="$1" -f /dev/null && ended "$2" "$3" KILL; } </dev/null &
cat >/dev/null
ended "$1" tritonserver TERM
"""


class Guardian:
    """Of the process that makes it. `dismiss` before that ends as it should."""

    def __init__(self) -> None:
        name = Path("/proc/self/comm").read_text().strip()
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "guardian", str(os.getppid()), str(os.getpid()), name],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

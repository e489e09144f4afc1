"""Ends tritonserver when the process of one of its models dies. tritonserver 2.51 never starts such a process again, says that it
is ready, and fails every request to the model for ever; whoever runs the server does start it again.
"""

import os
import subprocess

# It reads until the model's process has closed its end, by dying, and then makes sure that the number is still the server's.
_SCRIPT = 'cat >/dev/null; [ "$(cat /proc/$1/comm)" = tritonserver ] && kill -TERM "$1"'


class Guardian:
    """Of the process that makes it. `dismiss` before that ends as it should."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "guardian", str(os.getppid())], stdin=subprocess.PIPE, start_new_session=True
        )

    def dismiss(self) -> None:
        self._process.kill()
        self._process.wait()

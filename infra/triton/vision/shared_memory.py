"""The memory through which tritonserver hands frames to a model's process, and that nobody else shall read."""

from pathlib import Path

_NAMED_IN = Path("/dev/shm")  # noqa: S108  (Linux has its shared memory there; only our own is touched)


def withdraw() -> None:
    """Takes the name from the memory that this process shares with tritonserver. To be called before the first frame.

    tritonserver makes it with mode 0644, whatever the umask is (Boost sets the mode itself): everybody on the machine could read
    the last frame. Both processes have it open by now, and it grows without being opened again. Without a name nobody else opens
    it, and it is gone with the two processes, however they end.
    """
    # The server names it to the process it starts for a model: `triton_python_backend_stub model.py NAME …`.
    arguments = Path("/proc/self/cmdline").read_bytes().decode(errors="replace").split("\0")
    mapped = {Path(line.split(maxsplit=5)[-1]) for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    for region in mapped & {_NAMED_IN / name for name in arguments if name and "/" not in name}:
        region.unlink(missing_ok=True)

"""Becomes another program that cannot outlive the process which started it.

Run as a script by `streams.core.supervisor`, before the real program, as

    python -I -S process_launcher.py PARENT_PID DEATH_SIGNAL USER -- PROGRAM ARGUMENT…

It replaces itself by the program, so the process id stays the same and no extra process remains. This is done here and not in
`subprocess`'s `preexec_fn`, because code run between fork and exec of a process that has threads can deadlock. It imports only
the standard library and starts in about 20 ms.
"""

import ctypes
import os
import pwd
import resource
import sys

# Loaded before the user changes: the new user may not be allowed to read the files of this interpreter.
C_LIBRARY = ctypes.CDLL(None, use_errno=True)


def die_with_parent(death_signal: int) -> None:
    """Asks Linux to send `death_signal` when the parent thread ends. Elsewhere nothing happens: the supervisor still stops its
    processes in order, but a SIGKILL of the supervisor itself would leave them running."""
    if not sys.platform.startswith("linux"):
        return
    pr_set_pdeathsig = 1
    C_LIBRARY.prctl(pr_set_pdeathsig, death_signal, 0, 0, 0)


def leave_no_core_dump() -> None:
    """What a process held when it crashed may be somebody's frame or key: it is written to no file, and handed to no program.

    To a limit of 0 Linux pays no heed where /proc/sys/kernel/core_pattern names a program; at 1 it does not start it (see
    fs/coredump.c), and a file of one byte is not written either.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    limit = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def become_user(name: str) -> None:
    """Gives up root for good. Must happen before `die_with_parent`: a change of user clears that wish."""
    user = pwd.getpwnam(name)
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    os.environ["HOME"] = user.pw_dir
    os.environ["USER"] = os.environ["LOGNAME"] = name


def main() -> None:
    parent_pid, death_signal, user, separator, *program = sys.argv[1:]
    if separator != "--" or not program:
        sys.exit("process_launcher: expected PARENT_PID DEATH_SIGNAL USER -- PROGRAM …")
    if user != "-":
        become_user(user)
    leave_no_core_dump()
    die_with_parent(int(death_signal))
    # The parent may have died before the wish above was made; then nobody would ever stop this process.
    if os.getppid() != int(parent_pid):
        sys.exit("process_launcher: the supervisor is gone; not starting")
    try:
        os.execvp(program[0], program)
    except OSError as error:
        sys.stderr.write(f"cannot run {program[0]}: {error.strerror}\n")
        sys.exit(127)


main()

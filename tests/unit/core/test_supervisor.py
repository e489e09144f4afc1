"""The supervisor, with real child processes."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from streams.core.supervisor import (
    NEVER_RESTART,
    EventKind,
    ProcessEvent,
    ProcessFailed,
    ProcessSpec,
    ProcessState,
    ReadyCheck,
    RestartPolicy,
    Supervisor,
)

SLEEP = "import time; time.sleep(600)"
QUICK = RestartPolicy(pauses_seconds=(0.01,), maximum_restarts=3, window_seconds=60)

MakeSpec = Callable[..., ProcessSpec]


@pytest.fixture
def spec(tmp_path: Path) -> MakeSpec:
    def make(name: str, code: str = SLEEP, **options: object) -> ProcessSpec:
        program = [sys.executable, "-I", "-S", "-u", "-c", textwrap.dedent(code)]
        given = {"argv": program, "log_file": tmp_path / f"{name}.log", "restart": QUICK, **options}
        return ProcessSpec(name=name, **given)  # type: ignore[arg-type]

    return make


def file_appears(path: Path) -> ReadyCheck:
    async def check() -> None:
        if not path.exists():
            raise FileNotFoundError(f"{path.name} is not there")

    return check


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.02)


def running_pid(supervisor: Supervisor, name: str) -> int:
    pid = supervisor.status(name).pid
    assert pid is not None
    return pid


async def test_start_waits_until_ready_and_stop_ends_the_process(spec: MakeSpec, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    code = f"import time; time.sleep(0.2); open({str(flag)!r}, 'w'); time.sleep(600)"
    async with Supervisor() as supervisor:
        await supervisor.start([spec("worker", code, ready=file_appears(flag))])
        assert flag.exists()
        status = supervisor.status("worker")
        assert status.state is ProcessState.READY
        pid = running_pid(supervisor, "worker")
        assert status.created_at == psutil.Process(pid).create_time()
    assert gone(pid)
    assert supervisor.status("worker").state is ProcessState.STOPPED
    assert supervisor.status("worker").pid is None


async def test_the_child_is_the_program_itself_with_its_environment(spec: MakeSpec, tmp_path: Path) -> None:
    code = "import os; print(os.environ['COLOUR'], os.getpid(), os.getcwd()); import time; time.sleep(600)"
    async with Supervisor() as supervisor:
        worker = spec("worker", code, environment={"COLOUR": "green"}, working_directory=tmp_path)
        await supervisor.start([worker])
        pid = running_pid(supervisor, "worker")
        await eventually(lambda: f"green {pid} {tmp_path}" in worker.log_file.read_text())


async def test_a_process_that_dies_is_started_again(spec: MakeSpec) -> None:
    events: list[ProcessEvent] = []
    async with Supervisor(events.append) as supervisor:
        await supervisor.start([spec("worker")])
        first = running_pid(supervisor, "worker")
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: supervisor.status("worker").pid not in (None, first))
        await supervisor.wait_until_ready("worker")
        assert supervisor.status("worker").restarts == 1
    died = [event.detail for event in events if event.kind is EventKind.DIED]
    assert len(died) == 1
    assert "was ended by SIGKILL" in died[0]


async def test_a_process_that_dies_too_often_is_reported_and_left_alone(spec: MakeSpec) -> None:
    events: list[ProcessEvent] = []
    async with Supervisor(events.append) as supervisor:
        crashing = spec("crashing", "import time; print('about to fail'); time.sleep(0.1); raise SystemExit(3)")
        await supervisor.start([crashing, spec("steady")])
        async with asyncio.timeout(60):
            failure = await supervisor.wait_for_failure()
        assert failure.name == "crashing"
        assert "ended with exit status 3" in failure.problem
        assert "about to fail" in failure.log_tail
        status = supervisor.status("crashing")
        assert (status.state, status.restarts) == (ProcessState.FAILED, QUICK.maximum_restarts)
        assert status.problem == failure.problem
        assert supervisor.status("steady").state is ProcessState.READY
        with pytest.raises(ProcessFailed, match="crashing"):
            await supervisor.wait_until_ready("crashing")
    assert [event.kind for event in events if event.name == "crashing"][-1] is EventKind.FAILED


async def test_asked_for_deaths_are_not_held_against_a_process(spec: MakeSpec) -> None:
    async with Supervisor() as supervisor:
        await supervisor.start([spec("worker")])
        for _ in range(QUICK.maximum_restarts + 3):
            killed = await supervisor.kill_process("worker")
            assert gone(killed)
            await supervisor.wait_until_ready("worker", 30)
        assert supervisor.status("worker").restarts == QUICK.maximum_restarts + 3


async def test_a_process_that_is_never_restarted_is_reported_at_once(spec: MakeSpec) -> None:
    async with Supervisor() as supervisor:
        await supervisor.start([spec("fragile", restart=NEVER_RESTART)])
        await supervisor.kill_process("fragile")
        async with asyncio.timeout(60):
            failure = await supervisor.wait_for_failure()
        assert "is not restarted" in failure.problem


async def test_a_start_that_fails_names_the_process_its_log_and_the_remedy(spec: MakeSpec) -> None:
    broken = spec(
        "broken", "print('the door is locked'); raise SystemExit(1)", remedy="Fetch the key.", ready=file_appears(Path("/none"))
    )
    async with Supervisor() as supervisor:
        with pytest.raises(ProcessFailed) as caught:
            await supervisor.start([spec("healthy"), broken])
        assert supervisor.status("healthy").pid is None, "what the failed call started is stopped again"
    message = str(caught.value)
    assert "broken ended with exit status 1" in message
    assert "the door is locked" in message
    assert "What to do: Fetch the key." in message


async def test_a_ready_check_that_never_passes_shows_its_last_error(spec: MakeSpec) -> None:
    worker = spec("worker", "print('waiting for godot')\n" + SLEEP, ready=file_appears(Path("/none")), ready_timeout_seconds=0.5)
    async with Supervisor() as supervisor:
        with pytest.raises(ProcessFailed, match=r"was not ready within 0\.5 s \(none is not there\)") as caught:
            await supervisor.start([worker])
        assert "waiting for godot" in caught.value.log_tail
        assert supervisor.status("worker").pid is None


async def test_a_ready_check_may_also_answer_yes_or_no(spec: MakeSpec) -> None:
    answers = [False, False, True]

    async def check() -> bool:
        return answers.pop(0)

    async with Supervisor() as supervisor:
        await supervisor.start([spec("worker", ready=check)])
        assert answers == []


async def test_what_an_earlier_run_left_is_cleared_before_every_start(spec: MakeSpec, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    code = f"import time; time.sleep(0.2); open({str(flag)!r}, 'x'); time.sleep(600)"
    async with Supervisor() as supervisor:
        await supervisor.start(
            [spec("worker", code, ready=file_appears(flag), before_start=lambda: flag.unlink(missing_ok=True))]
        )
        await supervisor.kill_process("worker")
        await supervisor.wait_until_ready("worker", 30)
        assert supervisor.status("worker").restarts == 1


async def test_a_program_that_does_not_exist_is_said_so(spec: MakeSpec) -> None:
    async with Supervisor() as supervisor:
        with pytest.raises(ProcessFailed, match="cannot run no-such-program"):
            await supervisor.start([spec("lost", argv=["no-such-program"], ready=file_appears(Path("/none")))])


async def test_the_log_of_an_earlier_run_is_not_shown_as_this_ones(spec: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "worker.log").write_text("an old story\n")
    async with Supervisor() as supervisor:
        with pytest.raises(ProcessFailed) as caught:
            await supervisor.start([spec("worker", "raise SystemExit('a new one')", ready=file_appears(Path("/none")))])
    assert caught.value.log_tail == "a new one"


async def test_dependencies_start_first_and_stop_last(spec: MakeSpec, tmp_path: Path) -> None:
    diary = tmp_path / "diary"

    def writer(name: str) -> str:
        return f"""
            import os, signal, sys, time
            def note(word):
                with open({str(diary)!r}, "a") as file:
                    file.write(word + " {name}\\n")
            def leave(*_):
                time.sleep(0.1)
                note("stop")
                sys.exit(0)
            signal.signal(signal.SIGTERM, leave)
            time.sleep(0.1)
            note("start")
            open({str(tmp_path / name)!r}, "w")
            time.sleep(600)
        """

    def noted(name: str, *depends_on: str) -> ProcessSpec:
        return spec(name, writer(name), ready=file_appears(tmp_path / name), depends_on=depends_on)

    async with Supervisor() as supervisor:
        await supervisor.start([noted("roof", "walls"), noted("walls", "ground"), noted("ground")])
        await supervisor.start([noted("chimney", "roof")])
    assert diary.read_text().splitlines() == [
        "start ground",
        "start walls",
        "start roof",
        "start chimney",
        "stop chimney",
        "stop roof",
        "stop walls",
        "stop ground",
    ]


async def test_dependencies_that_cannot_be_met_are_refused(spec: MakeSpec) -> None:
    async with Supervisor() as supervisor:
        with pytest.raises(ValueError, match="depends on nobody, which is not known"):
            await supervisor.start([spec("a", depends_on=["nobody"])])
        with pytest.raises(ValueError, match="wait for each other: a, b"):
            await supervisor.start([spec("a", depends_on=["b"]), spec("b", depends_on=["a"])])
        assert supervisor.processes() == []


async def test_what_runs_to_completion_comes_before_what_depends_on_it(spec: MakeSpec, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    migration = spec("migration", f"import time; time.sleep(0.2); open({str(flag)!r}, 'w')", runs_to_completion=True)
    worker = spec(
        "worker", f"import os; assert os.path.exists({str(flag)!r}); import time; time.sleep(600)", depends_on=["migration"]
    )
    async with Supervisor() as supervisor:
        await supervisor.start([worker, migration])
        assert supervisor.status("migration").state is ProcessState.COMPLETED
        assert supervisor.status("worker").state is ProcessState.READY


async def test_a_failing_step_fails_the_start(spec: MakeSpec) -> None:
    async with Supervisor() as supervisor:
        with pytest.raises(ProcessFailed, match="migration ended with exit status 2"):
            await supervisor.start(
                [spec("migration", "raise SystemExit(2)", runs_to_completion=True), spec("w", depends_on=["migration"])]
            )
        with pytest.raises(ProcessFailed, match=r"slow had not finished after 0\.2 s"):
            await supervisor.start([spec("slow", runs_to_completion=True, ready_timeout_seconds=0.2)])


async def test_one_process_can_be_stopped_and_started(spec: MakeSpec) -> None:
    async with Supervisor() as supervisor:
        await supervisor.start([spec("one"), spec("other")])
        other = running_pid(supervisor, "other")
        await supervisor.stop_process("one")
        assert supervisor.status("one").state is ProcessState.STOPPED
        with pytest.raises(ProcessFailed, match="one is stopped"):
            await supervisor.wait_until_ready("one")
        await asyncio.sleep(0.2)
        assert supervisor.status("one").pid is None, "what was stopped on purpose stays stopped"
        await supervisor.start_process("one")
        assert supervisor.status("one").state is ProcessState.READY
        assert running_pid(supervisor, "other") == other


async def test_a_process_that_ignores_the_stop_signal_is_killed_with_all_it_started(spec: MakeSpec, tmp_path: Path) -> None:
    child_pid_file = tmp_path / "child"
    code = f"""
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"])
        with open({str(child_pid_file) + ".new"!r}, "w") as file:
            file.write(str(child.pid))
        os.rename({str(child_pid_file) + ".new"!r}, {str(child_pid_file)!r})
        time.sleep(600)
    """
    async with Supervisor() as supervisor:
        await supervisor.start([spec("stubborn", code, ready=file_appears(child_pid_file), stop_timeout_seconds=0.3)])
        pid, child = running_pid(supervisor, "stubborn"), int(child_pid_file.read_text())
    assert gone(pid)
    await eventually(lambda: gone(child))


async def test_an_interrupted_start_leaves_nothing(spec: MakeSpec) -> None:
    async with Supervisor() as supervisor:
        starting = asyncio.create_task(supervisor.start([spec("slow", ready=file_appears(Path("/none")))]))
        await eventually(lambda: any(status.pid for status in supervisor.processes()))
        pid = running_pid(supervisor, "slow")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert gone(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
async def test_no_child_outlives_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    program = f"""
        import asyncio, sys
        from pathlib import Path
        from streams.core.supervisor import ProcessSpec, Supervisor

        async def main():
            async with Supervisor() as supervisor:
                argv = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
                log = Path({str(tmp_path)!r}) / "log"
                await supervisor.start([ProcessSpec(name=str(n), argv=argv, log_file=log) for n in range(4)])
                print(*(status.pid for status in supervisor.processes()), flush=True)
                await asyncio.sleep(600)

        asyncio.run(main())
    """
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, cwd=root) as supervisor:
        assert supervisor.stdout is not None
        children = [int(pid) for pid in (await asyncio.to_thread(supervisor.stdout.readline)).split()]
        assert len(children) == 4
        assert not any(gone(pid) for pid in children)
        supervisor.kill()
        await eventually(lambda: all(gone(pid) for pid in children))


def test_pauses_grow_and_the_last_one_repeats() -> None:
    policy = RestartPolicy(pauses_seconds=(0.1, 1.0), maximum_restarts=3)
    assert [policy.pause_before_restart(deaths) for deaths in (1, 2, 3, 4)] == [0.1, 1.0, 1.0, None]


async def test_a_log_that_grows_large_is_set_aside_while_its_process_goes_on(spec: MakeSpec, tmp_path: Path) -> None:
    log, aside = tmp_path / "talker.log", tmp_path / "talker.log.1"
    async with Supervisor() as supervisor:
        await supervisor.start([spec("talker", "import time\nwhile True: print('x' * 99); time.sleep(0.001)")])
        await eventually(lambda: log.stat().st_size > 20_000)
        supervisor.set_large_logs_aside(limit_bytes=20_000)
        assert aside.stat().st_size > 20_000
        assert log.stat().st_size < aside.stat().st_size
        await eventually(lambda: log.stat().st_size > 1_000)
        assert b"\x00" not in log.read_bytes(), "it goes on at the beginning, not where it was"

"""The thread pool when everything happens at once: callers that come and go, other numbers of
threads, forks, signals, the end of the process, and processors that others use."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dualgrad.runtime import threads
from dualgrad.runtime.host import cpu_count

TESTS = Path(__file__).resolve().parent.parent
PRELUDE = """
    import os, random, signal, sys, threading, time
    from pool_bodies import BODIES, Job, compiled
    from dualgrad.runtime.threads import pool, set_num_threads
    from dualgrad.runtime.threads_ir import RECORD, RECORD_WORDS, WORDS
    count = compiled("bodies", BODIES, ("count", "nested", "storm"))["count"]

    def loop(n, steps):
        job = Job(80, steps=steps).run(count, n)
        assert (job.counts[:n] == 1).all(), job.counts
        assert (job.counts[n:] == 0).all(), job.counts
        return set(job.tids[:n].tolist())
"""

pytestmark = [
    pytest.mark.xdist_group("threads"),
    pytest.mark.skipif(
        not threads._has_native_threads(), reason="parallel_for is serial on this system"
    ),
]


def start(text, tmp_path, *arguments):
    """A process that runs the text after PRELUDE."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    environ = {**os.environ, "PYTHONPATH": path, "DG_CACHE_DIR": str(tmp_path / "cache")}
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(text)]
        + [str(a) for a in arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**environ, "DG_NUM_THREADS": "3"},
    )


def outcome(process):
    """Exit status, output and errors of a process that must end by itself."""
    try:
        out, errors = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its forked children as well
        out, errors = process.communicate()
        errors += "\ntook too long"
    return process.returncode, out, errors


@pytest.mark.parametrize("seed", range(3))
def test_a_random_schedule(tmp_path, seed):
    """Python threads start, call and die while others call; the number of threads changes and the
    process forks meanwhile.  Every chunk of every loop runs exactly once."""
    text = """
    rng = random.Random(int(sys.argv[1]))
    failures, calls, over = [], [0], threading.Event()

    def caller(seed):
        rng = random.Random(seed)
        try:
            for _ in range(rng.randrange(1, 60)):
                loop(rng.randrange(0, 80), 1 << rng.randrange(0, 14))
                calls[0] += 1
                if rng.random() < 0.1:
                    time.sleep(rng.choice([0.0, 0.0003, 0.002]))
        except BaseException as error:
            failures.append(error)

    def fork():
        child = os.fork()
        if not child:
            try:
                for _ in range(10):
                    loop(40, 1 << 10)
                os._exit(0)
            finally:
                os._exit(1)
        if os.waitpid(child, 0)[1]:
            failures.append("child")

    alive = []
    for turn in range(120):
        alive = [t for t in alive if t.is_alive()]
        while len(alive) < 3:
            alive.append(threading.Thread(target=caller, args=(rng.random(),)))
            alive[-1].start()
        chance = rng.random()
        if chance < 0.2:
            set_num_threads(rng.randrange(1, 6))
        elif chance < 0.35:
            fork()
        elif chance < 0.5:
            time.sleep(rng.choice([0.0, 0.001, 0.01]))
        else:
            loop(rng.randrange(0, 80), 1 << rng.randrange(0, 16))
    for thread in alive:
        thread.join()
    assert not failures, failures
    set_num_threads(4)
    seen, end = set(), time.monotonic() + 60
    while seen < set(range(4)) and time.monotonic() < end:
        seen |= loop(80, 1 << 16)
    assert seen == set(range(4))
    print(calls[0] > 100)
    """
    assert outcome(start(text, tmp_path, seed)) == (0, "True\n", "")


def test_interrupts_reach_python_and_leave_the_pool_whole(tmp_path):
    text = """
    loop(8, 1)
    for _ in range(5):
        try:
            print("running", flush=True)
            while True:
                loop(64, 1 << 14)
        except KeyboardInterrupt:
            pass
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for _ in range(200):
        loop(64, 1 << 10)
    print("done")
    """
    process = start(text, tmp_path)
    for _ in range(5):
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
    assert outcome(process) == (0, "done\n", "")


@pytest.mark.parametrize("leave", ["sys.exit(0)", "os._exit(0)", ""])
def test_the_process_ends_while_another_thread_runs_a_loop(tmp_path, leave):
    text = f"""
    def work():
        while True:
            loop(64, 1 << 22)
    loop(8, 1)
    threading.Thread(target=work, daemon=True).start()
    time.sleep(0.02)
    {leave}
    """
    assert outcome(start(text, tmp_path)) == (0, "", "")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs affinity")
def test_workers_run_where_the_process_may(tmp_path):
    """A smaller affinity holds from the next `set_num_threads` on."""
    text = """
    def workers():
        at = [WORDS["records"] + RECORD_WORDS * tid + RECORD["kernel"] for tid in (1, 2)]
        while not all(pool()._words[i] for i in at):
            time.sleep(0.001)
        return [os.sched_getaffinity(pool()._words[i]) for i in at]
    everywhere = os.sched_getaffinity(0)
    assert all(cpus <= everywhere for cpus in workers())
    one = {max(everywhere)}
    os.sched_setaffinity(0, one)
    set_num_threads(3)
    assert workers() == [one, one], workers()
    for _ in range(100):
        loop(30, 1 << 12)
        time.sleep(0.0005)
    assert workers() == [one, one], workers()
    """
    assert outcome(start(text, tmp_path)) == (0, "", "")


@pytest.mark.skipif(cpu_count() < 2, reason="needs two processors")
def test_a_caller_helps_workers_that_have_no_processor(tmp_path):
    """With more threads than processors, workers with a chunk have to wait for one at times; the
    caller takes them onto its own, and sends them away again."""
    text = """
    keep = set(sorted(os.sched_getaffinity(0))[:2])
    os.sched_setaffinity(0, keep)
    set_num_threads(6)
    words, end = pool()._words, time.monotonic() + 60
    while not words[WORDS["all.pulls"]] and time.monotonic() < end:
        loop(64, 1 << 17)
    assert words[WORDS["all.pulls"]] > 0
    for _ in range(50):
        loop(64, 1 << 15)
    assert words[WORDS["pulls"]] == 0
    for tid in range(1, 6):
        at = WORDS["records"] + RECORD_WORDS * tid
        assert words[at + RECORD["pulled"]] == 0
        assert os.sched_getaffinity(words[at + RECORD["kernel"]]) == keep - {words[WORDS["avoid"]]}
    """
    assert outcome(start(text, tmp_path)) == (0, "", "")


def test_a_child_compiles_though_another_thread_was_compiling(tmp_path):
    text = """
    from dualgrad.runtime.config import config
    from dualgrad.runtime.linker import host_object
    over = threading.Event()

    def compile(name):
        with config.scope(cache=False):
            host_object(name, f"define void @{name}() {{\\n  ret void\\n}}\\n")

    def work():
        while not over.is_set():
            compile("parent")

    compile("first")
    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(20):
        child = os.fork()
        if not child:
            compile("child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    over.set()
    thread.join()
    """
    assert outcome(start(text, tmp_path)) == (0, "", "")

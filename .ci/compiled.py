"""Plugin for pytest: says how much was compiled in the test process."""

from typing import Any

from dualgrad.runtime.profile import counters


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(
        f"{counters.compiled} programs compiled in {counters.compile_seconds:.1f} s, "
        f"{counters.cache_hits} taken from the disk cache, {counters.kernels} kernels launched"
    )

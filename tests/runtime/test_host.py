"""Limits of containers, from made-up file systems."""

import os

import pytest

from dualgrad.runtime.host import cpu_count, memory_bytes

AVAILABLE = cpu_count()


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "10000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "nonsense", "sys/fs/cgroup/cpu.max": "1 1"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "99900000 100000"}, None),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/y\n",
                "sys/fs/cgroup/cpu/y/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/y/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
    ],
)
def test_cpu_quota(tmp_path, files, count):
    bare = tmp_path / "bare"
    expected = cpu_count(bare) if count is None else count
    assert cpu_count(tree(tmp_path / "host", files)) == expected


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs affinity")
def test_without_a_quota_the_affinity_counts(tmp_path):
    assert cpu_count(tmp_path) == len(os.sched_getaffinity(0))


def test_part_of_a_cpu_counts_as_one_more(tmp_path):
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "110000 100000\n"}
    assert cpu_count(tree(tmp_path, files)) == min(2, AVAILABLE)


def test_memory_limit(tmp_path):
    whole = memory_bytes(tmp_path / "bare")
    assert whole > 1 << 26
    files = {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}
    assert memory_bytes(tree(tmp_path, files)) == whole
    files["sys/fs/cgroup/memory.max"] = "1000000\n"
    assert memory_bytes(tree(tmp_path, files)) == 1_000_000

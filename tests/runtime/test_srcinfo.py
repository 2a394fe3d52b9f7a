"""Finding the user's line."""

import functools
import os
import pickle
import subprocess
import sys
import textwrap

import pytest

import dualgrad
from dualgrad.runtime import dtype, errors, srcinfo
from dualgrad.runtime.errors import DTypeError
from dualgrad.runtime.srcinfo import Location, user_line_key, user_location


def here():
    """Line number of the caller."""
    return sys._getframe(1).f_lineno


def run(tmp_path, source):
    """Run a program given as text; its output."""
    path = tmp_path / "train.py"
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_innermost_user_frame():
    where, line = user_location(), here()
    assert where is not None
    assert (where.filename, where.lineno) == (__file__, line)
    assert where.function == "test_innermost_user_frame"
    assert where.text == "where, line = user_location(), here()"
    assert where.text[where.col : where.end_col] == "user_location()"


def test_key_is_file_and_line():
    key, line = user_line_key(), here()
    assert key == (__file__, line)


def test_skip_goes_outwards():
    def inner():
        return user_location(), user_location(1)

    (first, second), line = inner(), here()
    assert first.function == "inner"
    assert (second.function, second.lineno) == ("test_skip_goes_outwards", line)
    assert user_location(100000) is None


def test_frames_of_the_packages_are_not_the_users():
    try:
        dtype.as_dtype("nonsense")
    except DTypeError as error:
        where = error.location
    assert where.filename == __file__
    assert where.text == 'dtype.as_dtype("nonsense")'
    assert (where.col, where.end_col) == (0, len(where.text))


def test_all_package_folders_are_own():
    for package in (os.path.dirname(dualgrad.__file__), os.path.dirname(srcinfo.__file__)):
        assert srcinfo._classify(os.path.join(os.path.abspath(package), "x.py"))
    assert srcinfo._classify(errors.__file__)
    compiler = os.path.join(os.path.dirname(os.path.dirname(srcinfo.__file__)), "compiler", "x.py")
    assert srcinfo._classify(compiler)
    beside = os.path.abspath(dualgrad.__path__[0]) + "_of_somebody"
    assert not srcinfo._classify(os.path.join(beside, "x.py"))
    assert not srcinfo._classify(__file__)


def test_glue_is_skipped():
    @functools.lru_cache
    def find():
        return user_location()

    assert find().function == "find"
    assert srcinfo._classify(functools.__file__)


def test_columns_count_characters_not_bytes():
    ärger = "ß"
    where = (ärger + "ü", user_location())[1]
    assert where.text[where.col : where.end_col] == "user_location()"


def test_expression_over_several_lines_is_marked_to_the_end_of_its_first():
    where = user_location(
        0,
    )
    assert where.text[where.col : where.end_col] == "user_location("


def test_render(tmp_path):
    out = run(
        tmp_path,
        """
        from dualgrad.runtime.dtype import promote, int8, uint64

        def forward(h):
            return 1 + len(str(promote(h, uint64)))

        try:
            forward(int8)
        except TypeError as error:
            print(error.location.render())
        """,
    )
    assert out.splitlines() == [
        "  at train.py:5 in forward",
        "      return 1 + len(str(promote(h, uint64)))",
        "                         ^^^^^^^^^^^^^^^^^^",
    ]


def test_unknown_source_has_no_text():
    where = Location("<nowhere>", 3, "f")
    assert (where.text, where.col, where.end_col) == ("", None, None)
    assert where.render() == "  at <nowhere>:3 in f"


def test_file_outside_of_the_working_folder_keeps_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    inside = Location(str(tmp_path / "a" / "b.py"), 1, "f")
    outside = Location(os.path.join(os.sep, "elsewhere", "b.py"), 1, "f")
    assert inside.render() == f"  at {os.path.join('a', 'b.py')}:1 in f"
    assert outside.render() == f"  at {outside.filename}:1 in f"


def test_pickle_keeps_text_and_columns():
    before = user_location()
    after = pickle.loads(pickle.dumps(before))
    assert after == before
    assert after.render() == before.render()
    assert "^" in after.render()


def test_location_is_a_value():
    first, second = [user_location() for _ in range(2)]
    assert first == second
    assert hash(first) == hash(second)
    with pytest.raises(AttributeError):
        first.lineno = 3


def test_generated_code_is_judged_by_its_module(tmp_path):
    out = run(
        tmp_path,
        """
        from dualgrad.runtime.srcinfo import user_location
        space = {"__name__": "dualgrad.made", "user_location": user_location}
        exec(compile("def f(): return user_location()", "<string>", "exec"), space)
        print(space["f"]().lineno)
        """,
    )
    assert out == "5\n"

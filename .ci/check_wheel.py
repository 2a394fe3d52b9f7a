"""Does a wheel hold all of the sources, and nothing else?  check_wheel.py WHEEL"""

import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACES = {"dualgrad": "dualgrad", "compiler": "dualgrad/compiler", "runtime": "dualgrad/runtime"}


def expected() -> set[str]:
    """Names in the wheel of all source files."""
    return {
        (Path(place) / file.relative_to(ROOT / folder)).as_posix()
        for folder, place in PLACES.items()
        for file in (ROOT / folder).rglob("*")
        if file.suffix in (".py", ".pyi") or file.name == "py.typed"
    }


def main(wheel: str) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if re.match(r"[^/]+\.dist-info/", name)}
    wrong = [f"missing: {name}" for name in sorted(expected() - names)]
    wrong += [f"unexpected: {name}" for name in sorted(names - metadata - expected())]
    if not any(name.endswith("/LICENSE") for name in metadata):
        wrong.append("missing: LICENSE")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"{len(names)} files, all of the sources and nothing else")


if __name__ == "__main__":
    main(sys.argv[1])

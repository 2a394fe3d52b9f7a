"""The command `dualgrad`: python -m dualgrad"""

import sys

from dualgrad.command_line import main

if __name__ == "__main__":
    sys.exit(main())

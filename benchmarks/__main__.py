"""All claims about the solvers: ``python -m benchmarks [--quick] [--json OUT] [--plot OUT.png]``, as ``lqo-mor bench``."""

import sys

from lqo_mor.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))

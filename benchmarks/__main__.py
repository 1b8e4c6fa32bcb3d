"""The claims about the solvers, the same as ``lqo-mor bench``.

python -m benchmarks [--only CLAIM ...] [--quick] [--json OUT] [--plot OUT.png]
"""

import sys

from lqo_mor.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))

"""Dense continuous equations: ours against SciPy, Slycot, python-control and pyMOR.

    python -m benchmarks.lyapunov_dense [--quick] [--json OUT]

The same as ``lqo-mor bench --only lyapunov_dense``.
"""

import sys

from lqo_mor.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--only", "lyapunov_dense", *sys.argv[1:]]))

"""How long `import churnkit` and `churnkit --help` take, beside bare Python and beside `import pandas`, in one run.

    python benchmarks/startup.py [--json] [--small]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import statistics
import subprocess
import sys
import time

CASES = {
    "bare python": ["-c", "pass"],
    "import churnkit": ["-c", "import churnkit"],
    "churnkit --help": ["-c", "import sys; sys.argv = ['churnkit', '--help']; from churnkit.cli import main; main()"],
    "a CRM job's imports": ["-c", "import churnkit.outreach.sync, churnkit.outreach.crm.files"],
    "import pandas": ["-c", "import pandas"],
}


def seconds(arguments: list[str]) -> float:
    """The wall time of one fresh interpreter."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Measures each case by the median of several fresh interpreters, interleaved."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", action="store_true")
    options.add_argument("--small", action="store_true")
    asked = options.parse_args()
    rounds = 5 if asked.small else 21
    taken: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, arguments in CASES.items():
            taken[name].append(seconds(arguments))
    median = {name: statistics.median(values) for name, values in taken.items()}
    figures = {name: round(value, 4) for name, value in median.items()}
    own = {name: round(median[name] - median["bare python"], 4) for name in CASES if name != "bare python"}
    result = {"benchmark": "startup", "rounds": rounds, "seconds": figures, "seconds_over_bare_python": own,
              "ratio_pandas": round(own["import churnkit"] / own["import pandas"], 4),
              "versions": {"python": sys.version.split()[0], "pandas": importlib.metadata.version("pandas")},
              "equal": True}
    if asked.json:
        print(json.dumps(result))
        return
    print(f"{'':22}{'seconds':>10}{'over bare':>12}")
    for name, value in figures.items():
        print(f"{name:22}{value:10.3f}{own.get(name, 0.0):12.3f}")
    print(f"import churnkit costs {result['ratio_pandas']:.1%} of what import pandas costs")


if __name__ == "__main__":
    main()

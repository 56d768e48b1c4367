#!/usr/bin/env python3
"""What a sweep costs beside its training: CPU time and peak memory by the number of cells, and how they grow.

Each is a process of its own:
  plan     from the command to the first of so many new runs: composing, looking at folders, checking
  skip     a sweep whose runs are all finished
  status   ncflow-status
  tables   load_runs and load_history
  figures  ncflow-figures: pictures and verdicts
  report   the same with --html
and beside them, in the same sitting, `import` (PyTorch and Lightning) and composing by Hydra alone, a cell (the
baseline of plan). Growth is the exponent between the two largest numbers of cells, time for imports subtracted.

The finished runs are copies of one real run of experiment=quickstart under the names and ids of others.

usage: scripts/bench_sweep.py [--cells 10 100 1000 10000] [--only plan skip ...]
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

BASE = ["experiment=quickstart", "trainer=cpu", "runs_dir=runs", "epochs=2", "data.num_samples=200"]
SMALL = ["data=conic_hull", "model.width=16", "data.num_test=50", "hydra/launcher=local"]
DECAYS = ["1e-4", "5e-4", "1e-3", "5e-3", "1e-2"]
PARTS = ["plan", "skip", "status", "tables", "figures", "report"]

CHILD = """
import json, resource, sys
part, arguments = sys.argv[1], json.loads(sys.argv[2])
sys.argv = ["ncflow", *arguments]
if part == "plan":
    from ncflow.results.report import Report
    from ncflow.sweeps import packs
    def launched(configs, *others):
        configs[0]
        return [Report("skipped", "") for _ in range(len(configs))]
    packs.run_packs = launched
if part in ("plan", "skip"):
    from ncflow.cli.train import main
elif part == "status":
    from ncflow.cli.status import main
elif part == "tables":
    def main():
        from ncflow.results import load_history, load_runs
        load_runs("runs"), load_history("runs")
elif part == "import":
    def main():
        import lightning, torch, torchvision
elif part == "hydra":
    def main():
        from hydra import compose, initialize_config_dir
        from ncflow.config.schema import CONF_DIR, register
        register()
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            for seed in range(20):
                compose("train", overrides=[*arguments[:-1], f"seed={seed}"], return_hydra_config=True)
else:
    from ncflow.cli.figures import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def grid(cells: int) -> list[str]:
    """Overrides of a sweep of so many cells."""
    seeds = max(1, cells // (2 * len(DECAYS)))
    return [f"seed=range({seeds})", f"weight_decay={','.join(DECAYS)}", "model.norm=none,last"]


def measure(part: str, arguments: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds and MiB of a part."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, part, json.dumps(arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{part}: {done.stderr[-2000:]}")
    seconds, mebibytes = json.loads(done.stdout.splitlines()[-1])
    return seconds, mebibytes


def cells_of(cells: int) -> Iterator[tuple[str, dict[str, object], Path]]:
    """Run id, values and folder of each cell."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from ncflow.config.identity import describe, folder_name
    from ncflow.config.schema import CONF_DIR, register

    register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        cfg = compose("train", overrides=[*BASE, *SMALL])
    for seed in range(max(1, cells // (2 * len(DECAYS)))):
        for decay in DECAYS:
            for norm in ("none", "last"):
                for name, value in (("seed", seed), ("weight_decay", float(decay)), ("model.norm", norm)):
                    OmegaConf.update(cfg, name, value)
                described = describe(cfg, "quickstart")
                yield str(described["run_id"]), described, Path("runs/quickstart") / folder_name(cfg)


def make_runs(folder: Path, cells: int) -> int:
    """Finished runs, all with the history of one that was trained; how many files a run has."""
    command = [sys.executable, "-m", "ncflow", *BASE, *SMALL, "seed=0", "weight_decay=1e-4", "model.norm=last"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    (first,) = (file.parent for file in folder.glob("runs/quickstart/*/result.json"))
    for run_id, described, place in cells_of(cells):
        target = folder / place
        if target == first:
            continue
        shutil.copytree(first, target, ignore=shutil.ignore_patterns("*.ckpt", ".lock"))
        for name in ("run.json", "result.json", "progress.json"):
            file = target / name
            if file.exists():
                content = {**json.loads(file.read_text()), **described}
                file.write_text(json.dumps({**content, "run_id": run_id}))
    return sum(len(names) for _, _, names in os.walk(first))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="*", default=[10, 100, 1000, 10000])
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS)
    asked = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {part: [] for part in asked.only}
    with tempfile.TemporaryDirectory() as name:
        imports, _ = measure("import", [], Path(name))
        hydra, _ = measure("hydra", [*BASE, *SMALL, ""], Path(name))
    print(f"importing PyTorch and Lightning: {imports:.1f} s; a cell by Hydra alone: {hydra / 20 * 1000:.0f} ms")
    print(f"{'cells':>8} " + " ".join(f"{part:>18}" for part in asked.only))
    for cells in asked.cells:
        with tempfile.TemporaryDirectory() as name:
            folder, row = Path(name), []
            for part in asked.only:
                if part != "plan" and not any(folder.glob("runs/*/*/result.json")):
                    files_of_a_run = make_runs(folder, cells)
                sweep = ["-m", *BASE, *SMALL, *grid(cells)]
                figures = ["runs", *(["--html"] if part == "report" else [])]
                seconds, mebibytes = measure(part, sweep if part in ("plan", "skip") else figures, folder)
                found[part].append((seconds, mebibytes))
                row.append(f"{seconds:>8.1f} s {mebibytes:>4.0f} MiB")
            print(f"{cells:>8} " + " ".join(f"{cell:>18}" for cell in row), flush=True)
    if asked.only != ["plan"]:
        print(f"files a finished run: {files_of_a_run}")
    if len(asked.cells) > 1:
        few, many = asked.cells[-2:]
        for part, values in found.items():
            base = 0.0 if part == "status" else min(imports, values[0][0])
            times = [max(seconds - base, 1e-3) for seconds, _ in values[-2:]]
            print(f"{part}: time grows as cells^{math.log(times[1] / times[0]) / math.log(many / few):.2f}")


if __name__ == "__main__":
    main()

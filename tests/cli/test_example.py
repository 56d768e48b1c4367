"""The example of data, a model and an experiment of one's own, as the README has it."""

import shutil
import sys
from pathlib import Path

from ncflow.results import load_runs

EXAMPLE = Path(__file__).parents[2] / ".github" / "example"
# What a console script does: the folder of the script, and not where one stands, is what it imports from.
SCRIPT = "import sys; sys.path[0] = '/nonexistent'; from ncflow.__main__ import main; main()"


def test_ones_own_data_model_and_experiment_are_found_where_one_stands(ncflow, tmp_path):
    shutil.copytree(EXAMPLE, tmp_path, dirs_exist_ok=True)
    program = (sys.executable, "-c", SCRIPT)
    command = ["--config-dir", "my_conf", "experiment=rings", "-m", "epochs=2", "seed=0,1", "weight_decay=1e-3"]
    done = ncflow(*command, "hydra/launcher=local", "hydra.launcher.n_jobs=1", program=program)
    assert (done.returncode, done.stderr) == (0, ""), done
    runs = load_runs(tmp_path / "runs")
    assert runs["status"].tolist() == ["done", "done"]
    assert runs["model._target_"].unique().tolist() == ["mine.Residual"]
    assert runs["train/classes_present"].tolist() == [3, 3]

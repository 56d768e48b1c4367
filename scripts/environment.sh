# Sourced by the scripts beside it: the project's own virtual environment.

# prepare WHAT: make .venv if there is none and install WHAT into it, unless that was done for this pyproject.toml.
prepare() {
  local stamp
  stamp="$1 $(cksum <pyproject.toml)"
  [ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
  if [ "$(cat .venv/.ncflow 2>/dev/null)" != "$stamp" ]; then
    echo "installing ncflow into .venv (a few minutes and gigabytes the first time)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable "$1"
    echo "$stamp" >.venv/.ncflow
  fi
}

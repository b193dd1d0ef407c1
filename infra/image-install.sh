#!/usr/bin/env bash
# The steps of infra/Dockerfile, in the checkout's root:
#   image-install.sh system                      packages of Debian and the user, as root
#   image-install.sh uv                          uv by its hash
#   image-install.sh pins cpu|gpu                prints every version with its hashes
#   image-install.sh list                        prints what the commands need, for `make sbom` and `make audit`
#   image-install.sh dependencies cpu|gpu FOLDER installs what the commands need below FOLDER, by these hashes alone
#   image-install.sh package FOLDER              installs this project below FOLDER
set -euo pipefail

EXTRAS=(--extra report --extra tracking --extra timm --extra heif)

system() {
  # KubeRay's probes of clusters call wget (issue 2063 there), which slim images lack.
  apt-get update
  apt-get install --yes --no-install-recommends wget
  rm -rf /var/lib/apt/lists/*
  useradd --uid 1000 --create-home ray
}

pins() {
  case "$1" in
    gpu) cat requirements.txt ;;
    cpu)
      # Without the entries of torch and torchvision (a line and the hashes below it); CPU wheels have others.
      awk '/^[^ #]/ { drop = /^(torch|torchvision)==/ } !drop' requirements.txt
      cat infra/requirements-torch-cpu.txt
      ;;
    *)
      echo "error: expected cpu or gpu, got $1" >&2
      exit 2
      ;;
  esac
}

dependencies() {
  local target=$1 folder=$2 file backend=()
  file=$(mktemp)
  pins "$target" >"$file"
  if [[ $target == cpu ]]; then
    backend=(--torch-backend cpu)
  fi
  # The pins constrain, so that what only tests need stays out.
  uv pip install --no-cache --prefix "$folder" --require-hashes --constraint "$file" "${backend[@]}" \
    "${EXTRAS[@]}" --requirements pyproject.toml
  rm "$file"
}

list() {
  uv pip compile --quiet --no-header --python-version 3.11 --generate-hashes --constraint requirements.txt \
    "${EXTRAS[@]}" pyproject.toml
}

package() {
  uv pip install --no-cache --prefix "$1" --no-deps .
}

case "${1:-}" in
  system) system ;;
  uv) pip install --no-cache-dir --disable-pip-version-check --require-hashes --requirement infra/requirements-uv.txt ;;
  pins) pins "$2" ;;
  list) list ;;
  dependencies) dependencies "$2" "$3" ;;
  package) package "$2" ;;
  *)
    sed -n '2,8p' "$0" >&2
    exit 2
    ;;
esac

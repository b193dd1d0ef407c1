#!/usr/bin/env bash
# audit.sh FILE: asks PyPI's advisories about every package that FILE pins, by the pip-audit on the PATH.
# Exit code 0: none has a known weakness. 1: some have, they are listed. 2: some could not be looked up.
set -uo pipefail

if [[ $# != 1 || ! -f $1 ]]; then
  echo "error: expected a file of pinned packages, got ${1:-none}" >&2
  exit 2
fi
said=$(mktemp)
trap 'rm -f "$said"' EXIT
# --strict: else a package that the index does not know, as behind a mirror, counts as one without weaknesses.
found=$(pip-audit --strict --require-hashes --disable-pip --progress-spinner off --requirement "$1" 2>"$said")
code=$?
if [[ $code == 0 ]]; then
  cat "$said"
elif [[ -n $found ]]; then
  echo "$found"
  echo "error: packages of $1 have known weaknesses: raise their versions in pyproject.toml, then \`make lock\`" >&2
  exit 1
else
  reason=$(tail -n 1 "$said" | cut -c 1-200)
  echo "error: needed PyPI's advisories for every package of $1, got none: ${reason:-pip-audit ended with $code}: run it where pypi.org answers" >&2
  exit 2
fi

#!/usr/bin/env bash
# Plays the first two nights of a fleet on this machine, with a Ray head of its own, in the checkout's root:
#   infra/first-nights.sh                    everything below build/first-nights
#   infra/first-nights.sh s3://a s3://b ...  four places: training photos, archive, detectors, results
# Draws photos, trains, scores a night that its deadline cuts off, goes on with it, scores a second night of new photos,
# and asks the table, as operator, reviewer and analyst would. PYTHON is the Python to run (default: python), WEIGHTS
# what --detector.weights takes (default: random, for speed alone). HOURS is the first deadline (default: 0.003).
# With ROLES=yes each step runs with the AWS profile of its role: owner, trainer, scorer, reviewer, analyst, whose
# policies are in infra/iam (the owner may do all; for a reviewer see infra/docs/operating.md).
set -euo pipefail

python=${PYTHON:-python}
folder=$PWD/build/first-nights
case $# in
  0) set -- "$folder"/{training,archive,detectors,results} ;;
  4) ;;
  *)
    sed -n '2,9p' "$0" >&2
    exit 2
    ;;
esac
training=$1 archive=$2 detectors=$3 results=$4
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} RAY_DATA_USE_DATASOURCE_V2=0 RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=disabled
rm -rf "$folder"
mkdir -p "$folder"

# as ROLE COMMAND...
as() {
  local role=$1
  shift
  printf '\n== %s: %s\n' "$role" "$*"
  if [[ ${ROLES:-no} == yes ]]; then AWS_PROFILE=$role "$@"; else "$@"; fi
}

fail() {
  echo "error: $1" >&2
  exit 1
}

# upload FOLDER PLACE DATE: copies a folder of photos; DATE takes the place of the month in their keys.
upload() {
  as owner "$python" - "$@" <<'END'
import pathlib, sys
from jobs import storage
from jobs.storage import uris
folder, place, month = sys.argv[1:]
for file in sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file()):
    key = file.relative_to(folder).as_posix().replace("2026-03", month)
    storage.write(uris.join(uris.normalize(place), key), file.read_bytes())
END
}

# night DATE HOURS: what a scheduler would call.
night() {
  as scorer "$python" -m jobs.nightly --head "http://127.0.0.1:$dashboard" --score-config "$folder/score.yaml" \
    --name fleet --night "$1" --hours "$2" --python "$(command -v "$python")" --upload-code --poll-s 1 --pause-s 5
}

free_port() {
  "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

for month in 03 04; do
  "$python" -c 'import sys, pathlib; from jobs.synthetic.archive import draw_archive
draw_archive(pathlib.Path(sys.argv[1]), seed=int(sys.argv[2]), size_px=128, train_good=60, test_good=20, missing_cap=8,
             rust=8)' "$folder/drawn-$month" "${month#0}"
done
upload "$folder/drawn-03/data" "$training" 2026-03
upload "$folder/drawn-03/archive" "$archive" 2026-03
RAY_ADDRESS=local as trainer "$python" -m jobs.train --data "$training" --category insulator --detectors "$detectors" \
  --calibration-fraction 0.4 --detector.weights "${WEIGHTS:-random}" --detector.image-size 96

cat >"$folder/score.yaml" <<END
archive: $archive
detectors: $detectors
results: $results
key_pattern: (?P<category>[^/]+)/(?P<site>[^/]+)/(?P<captured_at>[0-9-]+)/
# Five files of each night are no photos, on purpose.
max_error_rate: 0.2
slice_photos: 8
report: true
scoring:
  actors: 1
END

dashboard=$(free_port)
identity=()
[[ ${ROLES:-no} != yes ]] || identity=(AWS_PROFILE=scorer)
env "${identity[@]}" "$python" -m ray.scripts.scripts start --head --block --num-cpus 8 \
  --object-store-memory 200000000 --port "$(free_port)" --dashboard-port "$dashboard" \
  --dashboard-agent-listen-port "$(free_port)" --metrics-export-port "$(free_port)" --temp-dir "$(mktemp -d)" \
  --ray-client-server-port "$(free_port)" --disable-usage-stats >"$folder/head.log" 2>&1 &
head=$!
trap 'kill "$head" || true; wait "$head" || true' EXIT

for _ in {1..300}; do
  ! "$python" -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1], timeout=2)' \
    "http://127.0.0.1:$dashboard/api/version" 2>/dev/null || break
  kill -0 "$head" || fail "the Ray head ended, see $folder/head.log"
  sleep 1
done

# The deadline, the rest of the first night, and the second, whose photos are new.
night 2026-03-31 "${HOURS:-0.003}" && fail "the first night was done before its deadline: give less HOURS"
night 2026-03-31 1
upload "$folder/drawn-04/archive" "$archive" 2026-04
night 2026-04-30 1

as reviewer "$python" -m jobs.sample --results "$results" --run-id fleet-2026-04-30 --n 5
as reviewer "$python" - "$results" "$folder/verdicts.csv" <<'END'
import csv, sys
from jobs.results.known import read_latest
from jobs.storage import uris
rows = read_latest(uris.normalize(sys.argv[1]), ["image_uri", "run_id", "status", "tail_rank"]).to_pylist()
new = [row for row in rows if row["status"] == "scored" and row["run_id"] == "fleet-2026-04-30"]
with open(sys.argv[2], "w", newline="") as file:
    csv.writer(file).writerows([("image_uri", "verdict")] + [
        (row["image_uri"], "defect") for row in sorted(new, key=lambda row: row["tail_rank"])[:3]])
END
as reviewer "$python" -m jobs.verdicts add "$folder/verdicts.csv" --results "$results" --by first-nights
as analyst "$python" -m jobs.evaluate --verdicts "$results" --run-id fleet-2026-04-30
as analyst "$python" - "$results" <<'END'
import sys, pathlib
import duckdb
from deltalake import DeltaTable
from jobs.results.access import make_location, make_storage_options
from jobs.storage import uris
for name in ("scores", "verdicts", "maps"):
    uri = uris.join(uris.normalize(sys.argv[1]), name)
    # The keys of a profile, which deltalake itself does not read.
    place, options = make_location(uri), make_storage_options(uri)
    if DeltaTable.is_deltatable(place, storage_options=options):
        duckdb.register(name + "_table", DeltaTable(place, storage_options=options).to_pyarrow_dataset())
for view in duckdb.extract_statements(pathlib.Path("infra/analyst/views.sql").read_text()):
    try:
        duckdb.execute(view)
    except duckdb.CatalogException:
        print("no maps yet")
for question in ("latest_state", "worst_per_site", "alarm_precision"):
    print(duckdb.sql(pathlib.Path(f"infra/analyst/questions/{question}.sql").read_text()))
END
echo "two nights are in $results/scores; the pages lie in $results/reports"

-- Three questions of an analyst to the result table, in DuckDB >= 1.2. infra/docs/analysts.md shows how to run them from
-- Python. With DuckDB's own command line, which this project does not install, point it at the results and run the file:
--   duckdb -cmd "SET VARIABLE results = 's3://inspection-results/fleet'" < infra/analyst/questions.sql
-- For s3:// first: CREATE SECRET (TYPE s3, PROVIDER credential_chain), which reads the standard AWS_* variables.

-- When each run ended; runs that have not, or were killed, have rows here once their next try has ended.
CREATE OR REPLACE TEMP TABLE runs AS
SELECT run_id, published_at
FROM read_json(
    getvariable('results') || '/runs/*.json', columns = {run_id: 'VARCHAR', published_at: 'TIMESTAMPTZ'}
);

-- A photo counts once in a night, with its newest row: a second run of that night may have scored it again.
CREATE OR REPLACE TEMP VIEW published AS
SELECT scores.*, runs.published_at, regexp_extract(filename, '/run_date=([^/]+)/', 1)::DATE AS run_date
-- No hive partitioning: a folder category=... above the results would replace the column.
FROM read_parquet(getvariable('results') || '/scores/**/*.parquet', hive_partitioning = false, filename = true) AS scores
JOIN runs USING (run_id)
QUALIFY row_number() OVER (PARTITION BY run_date, image_uri ORDER BY scored_at DESC, runs.published_at DESC) = 1;

-- Question 1: what are the most anomalous photos of tonight, per site?
-- The p-value compares photos of different categories; ties go to the score that lies further over its threshold.
SELECT
    coalesce(site, '(no site)') AS site,
    row_number() OVER most_anomalous AS place,
    round(p_value, 4) AS p_value,
    is_anomaly,
    category,
    captured_at,
    image_uri
FROM published
WHERE status = 'scored' AND run_date = (SELECT max(run_date) FROM published)
WINDOW most_anomalous AS (PARTITION BY site ORDER BY p_value, score / threshold DESC NULLS LAST, image_uri)
QUALIFY place <= 5
ORDER BY site, place;

-- Question 2a: does a category drift? Each night against the last one that is a week back or more (compared_with).
-- p-values of flawless photos are uniform, so their median is near 0.5. A median that falls while the detector stays
-- says that the photos have changed, not the assets. detector_changed: another one scores than in the night before.
WITH nights AS (
    SELECT
        category,
        run_date,
        count(*) AS photos,
        string_agg(DISTINCT detector_id, ', ' ORDER BY detector_id) AS detectors,
        avg(is_anomaly::INT) AS anomaly_share,
        median(p_value) AS median_p_value
    FROM published
    WHERE status = 'scored'
    GROUP BY category, run_date
),
changes AS (
    SELECT *, detectors <> lag(detectors) OVER (PARTITION BY category ORDER BY run_date) AS detector_changed
    FROM nights
)
SELECT
    now.category,
    now.run_date,
    now.photos,
    now.detectors,
    now.detector_changed,
    before.run_date AS compared_with,
    round(now.anomaly_share, 4) AS anomaly_share,
    round(now.anomaly_share - before.anomaly_share, 4) AS anomaly_share_change,
    round(now.median_p_value, 4) AS median_p_value,
    round(now.median_p_value - before.median_p_value, 4) AS median_p_value_change
FROM changes AS now
ASOF LEFT JOIN (SELECT *, run_date + INTERVAL 7 DAY AS week_later FROM nights) AS before
    ON before.category = now.category AND before.week_later <= now.run_date
ORDER BY now.category, now.run_date;

-- Question 2b: what could not be scored, and why? By the reason code, which stands before the colon.
SELECT
    run_date,
    status,
    split_part(error, ':', 1) AS reason,
    count(*) AS photos,
    min(image_uri) AS example
FROM published
WHERE status <> 'scored'
GROUP BY run_date, status, reason
ORDER BY run_date, photos DESC, reason;

-- Question 3: how many anomalies would another false-alarm budget give? Nothing is scored again: the p-value is kept.
-- Each photo counts once, with its newest score. Where smallest_p_value exceeds the budget, the detector was calibrated
-- on too few photos to support it.
WITH newest AS (
    SELECT category, p_value
    FROM published
    WHERE status = 'scored'
    QUALIFY row_number() OVER (PARTITION BY image_uri ORDER BY scored_at DESC, published_at DESC) = 1
)
SELECT
    category,
    false_alarm_rate,
    count(*) AS photos,
    count(*) FILTER (p_value <= false_alarm_rate) AS anomalies,
    round(count(*) * false_alarm_rate, 1) AS expected_if_all_were_flawless,
    min(p_value) AS smallest_p_value
FROM newest, unnest([0.01, 0.05, 0.1]::DOUBLE[]) AS budgets (false_alarm_rate)
GROUP BY category, false_alarm_rate
ORDER BY category, false_alarm_rate;

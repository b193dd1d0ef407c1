-- The views that the questions ask, for DuckDB, Athena and Spark alike. First run tables_<engine>.sql, which names the tables.

-- All rows: a photo has one for each time that something new was found out about it. attained_rate: the share of flawless photos that
-- the threshold reports on average. A threshold is one of n calibration scores, so this is a multiple of smallest_p_value up to
-- false_alarm_rate. With --confidence fewer are reported: the run record says how many. NULL where no alarm was possible.
CREATE OR REPLACE VIEW scores AS
SELECT
    *,
    CASE
        WHEN is_anomaly IS NOT NULL
            THEN coalesce(
                least(false_alarm_rate, floor(false_alarm_rate / smallest_p_value + 1e-6) * smallest_p_value),
                false_alarm_rate
            )
    END AS attained_rate
FROM scores_table;

-- The row of each photo, or of each box where parts of photos are scored, that holds now: the newest. Where the newest has no score, but
-- these very bytes have one, the newest of these: a detector that is damaged or gone says nothing of a photo. Photos that are deleted
-- or missing have no score that holds. Its columns are those of scores.
CREATE OR REPLACE VIEW latest AS
SELECT
    image_uri,
    image_etag,
    image_bytes,
    category,
    site,
    captured_at,
    status,
    error,
    score,
    p_value,
    threshold,
    is_anomaly,
    detector_id,
    detector_variant,
    views,
    precision,
    run_id,
    scored_at,
    schema_version,
    box,
    false_alarm_rate,
    confidence,
    calibration_photos,
    smallest_p_value,
    tail_rank,
    weights_id,
    attempt,
    image_key,
    width,
    height,
    fetched_at,
    peak_x,
    peak_y,
    peak_box,
    peak_share,
    run_date,
    attained_rate
FROM (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY image_uri, box
            ORDER BY
                CASE
                    WHEN newest_status NOT IN ('deleted', 'missing')
                        AND status = 'scored'
                        AND coalesce(image_etag = newest_etag, true)
                        THEN 0
                    ELSE 1
                END,
                scored_at DESC,
                run_id DESC
        ) AS place
    FROM (
        SELECT
            *,
            first_value(status) OVER (PARTITION BY image_uri, box ORDER BY scored_at DESC, run_id DESC) AS newest_status,
            first_value(image_etag) OVER (PARTITION BY image_uri, box ORDER BY scored_at DESC, run_id DESC) AS newest_etag
        FROM scores
    ) AS dated
) AS numbered
WHERE place = 1;

-- A row for each run. The record of a run, <results>/runs/<run_id>.json, says more: configuration, promises, versions.
-- expected_false_alarms: how many there were on average, were all photos flawless, which is the sum of attained_rate.
CREATE OR REPLACE VIEW runs AS
SELECT
    run_id,
    min(run_date) AS run_date,
    min(scored_at) AS first_scored_at,
    max(scored_at) AS last_scored_at,
    count(*) AS photos,
    sum(CASE WHEN status = 'scored' THEN 1 ELSE 0 END) AS scored,
    sum(CASE WHEN status = 'unreadable' THEN 1 ELSE 0 END) AS unreadable,
    sum(CASE WHEN status = 'failed' THEN 1 ELSE 0 END) AS failed,
    sum(CASE WHEN is_anomaly THEN 1 ELSE 0 END) AS anomalies,
    sum(attained_rate) AS expected_false_alarms
FROM scores
GROUP BY run_id;

-- The newest verdict on each photo, or box of it, with the bytes it had then: new bytes need a new verdict.
CREATE OR REPLACE VIEW verdicts AS
SELECT *
FROM (
    SELECT *, row_number() OVER (PARTITION BY image_uri, image_etag, box ORDER BY judged.at DESC, verdict) AS newest
    FROM verdicts_table AS judged
) AS numbered
WHERE newest = 1;

-- What people say of the photos of `latest`, one row for each that has a verdict. A verdict without image_etag is about whatever
-- bytes lie there.
CREATE OR REPLACE VIEW latest_verdicts AS
SELECT image_uri, box, verdict
FROM (
    SELECT
        latest.image_uri,
        latest.box,
        verdicts.verdict,
        row_number() OVER (
            PARTITION BY latest.image_uri, latest.box ORDER BY verdicts.at DESC, verdicts.verdict
        ) AS newest
    FROM latest
    INNER JOIN verdicts
        ON
            latest.image_uri = verdicts.image_uri
            AND latest.box IS NOT DISTINCT FROM verdicts.box
            AND coalesce(latest.image_etag = verdicts.image_etag, true)
) AS numbered
WHERE newest = 1;

-- The newest overlay and float maps of each photo, or box of it, with its bytes and by its detector (jobs.score --explain). Not
-- every photo has some: join from the photos with LEFT JOIN, as questions/explained.sql does.
CREATE OR REPLACE VIEW maps AS
SELECT *
FROM (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY image_uri, image_etag, box, detector_id ORDER BY explained_at DESC, run_id DESC
        ) AS newest
    FROM maps_table
) AS numbered
WHERE newest = 1;

-- Does a category change over the weeks? p-values of flawless photos like those of the calibration have a mean of 0.5. A mean
-- that falls while the detector stays says that the photos have changed: light, camera, season, or many new defects.
-- A photo counts once in a week, by its newest row of that week. anomaly_share is null where no anomaly was possible: the calibration is
-- too small for the false-alarm rate.
SELECT
    category,
    week,
    count(*) AS photos,
    avg(CASE WHEN is_anomaly THEN 1.0 WHEN NOT is_anomaly THEN 0.0 END) AS anomaly_share,
    avg(p_value) AS mean_p_value,
    count(DISTINCT detector_id) AS detectors
FROM (
    SELECT
        category,
        is_anomaly,
        p_value,
        detector_id,
        date_trunc('week', run_date) AS week,
        row_number() OVER (
            PARTITION BY image_uri, box, date_trunc('week', run_date) ORDER BY scored_at DESC, run_id DESC
        ) AS newest
    FROM scores
    WHERE status = 'scored'
) AS numbered
WHERE newest = 1
GROUP BY category, week
ORDER BY category, week;

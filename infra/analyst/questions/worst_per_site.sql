-- Which 20 photos of each site are the most anomalous? tail_rank orders them across categories and detectors, also where
-- p-values tie at the least that the calibration allows. Raw scores do not: they compare within one detector only.
SELECT site, place, p_value, tail_rank, is_anomaly, category, captured_at, image_uri, box
FROM (
    SELECT
        *,
        row_number() OVER (PARTITION BY site ORDER BY coalesce(tail_rank, p_value), p_value, image_uri, box) AS place
    FROM latest
    WHERE status = 'scored'
) AS ranked
WHERE place <= 20
ORDER BY site, place;

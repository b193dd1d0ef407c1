-- How many alarms are false? p-values of flawless photos are spread evenly over 0 to 1, and those of defective ones are small, so
-- the photos above 0.5 tell how many are flawless (Storey 2002): twice their number, or a little less where the p-values of a small
-- calibration have no step at 0.5. flawless_low and flawless_high are the ends of its 95 % interval, by the chance of the photos
-- alone; the run's summary also counts that of the calibration. expected_if_all_were_flawless as in the view runs.
SELECT
    category,
    photos,
    alarms,
    expected_if_all_were_flawless,
    least(1.0, flawless / photos) AS flawless_share,
    greatest(0.0, (flawless - 1.96 * sqrt(squares)) / photos) AS flawless_low,
    least(1.0, (flawless + 1.96 * sqrt(squares) + 3.84) / photos) AS flawless_high,
    greatest(0.0, alarms - expected_if_all_were_flawless * least(1.0, flawless / photos)) AS true_alarms
FROM (
    SELECT
        category,
        count(*) AS photos,
        sum(CASE WHEN is_anomaly THEN 1 ELSE 0 END) AS alarms,
        sum(attained_rate) AS expected_if_all_were_flawless,
        sum(CASE WHEN p_value > 0.5 THEN 1 / upper_share ELSE 0.0 END) AS flawless,
        sum(CASE WHEN p_value > 0.5 THEN 1 / (upper_share * upper_share) ELSE 0.0 END) AS squares
    FROM (
        SELECT
            category,
            is_anomaly,
            p_value,
            attained_rate,
            coalesce(1 - floor(0.5 / smallest_p_value + 1e-6) * smallest_p_value, 0.5) AS upper_share
        FROM latest
        WHERE status = 'scored'
    ) AS rated
    GROUP BY category
) AS counted
ORDER BY category;

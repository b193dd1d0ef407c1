-- How many alarms are false? p-values of flawless photos are spread evenly over 0 to 1, and those of defective ones are small, so
-- the photos above 0.5 tell how many are flawless (Storey 2002): twice their number. flawless_low and flawless_high are the
-- ends of its 95 % interval, by the chance of the photos alone; the run's summary also counts that of the calibration.
SELECT
    category,
    photos,
    alarms,
    expected_if_all_were_flawless,
    least(1.0, 2.0 * upper_half / photos) AS flawless_share,
    greatest(0.0, (2.0 * upper_half - 3.92 * sqrt(upper_half)) / photos) AS flawless_low,
    least(1.0, (2.0 * upper_half + 3.92 * sqrt(upper_half) + 3.84) / photos) AS flawless_high,
    greatest(0.0, alarms - expected_if_all_were_flawless * least(1.0, 2.0 * upper_half / photos)) AS true_alarms
FROM (
    SELECT
        category,
        count(*) AS photos,
        sum(CASE WHEN is_anomaly THEN 1 ELSE 0 END) AS alarms,
        sum(CASE WHEN is_anomaly IS NOT NULL THEN false_alarm_rate END) AS expected_if_all_were_flawless,
        sum(CASE WHEN p_value > 0.5 THEN 1 ELSE 0 END) AS upper_half
    FROM latest
    WHERE status = 'scored'
    GROUP BY category
) AS counted
ORDER BY category;

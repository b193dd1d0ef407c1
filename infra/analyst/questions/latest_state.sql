-- What is the state of the archive? Each photo counts once, by its newest row. expected_if_all_were_flawless as in the view runs.
SELECT
    category,
    status,
    count(*) AS photos,
    sum(CASE WHEN is_anomaly THEN 1 ELSE 0 END) AS anomalies,
    sum(
        CASE
            WHEN is_anomaly IS NOT NULL
                THEN coalesce(
                    least(false_alarm_rate, floor(false_alarm_rate / smallest_p_value + 1e-6) * smallest_p_value),
                    false_alarm_rate
                )
        END
    ) AS expected_if_all_were_flawless,
    max(run_date) AS newest_run
FROM latest
GROUP BY category, status
ORDER BY category, status;

-- What is the state of the archive? Each photo counts once, by its newest row. expected_if_all_were_flawless as in the view runs.
SELECT
    category,
    status,
    count(*) AS photos,
    sum(CASE WHEN is_anomaly THEN 1 ELSE 0 END) AS anomalies,
    sum(attained_rate) AS expected_if_all_were_flawless,
    max(run_date) AS newest_run
FROM latest
GROUP BY category, status
ORDER BY category, status;
